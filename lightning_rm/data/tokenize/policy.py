"""The policy for rows that are bad, too long or have identical responses, and the names under which they are counted.

This file only defines the choices; `fitting`, `cutting` and `tally` carry them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_rm.counts import check_counts
from lightning_rm.options import check_words

Overlong = Literal["drop", "truncate_prompt", "truncate_response", "error"]

OVERLONG = "overlong"
IDENTICAL = "identical responses"
IDENTICAL_IDS = "identical token ids"
IDENTICAL_CUT = "identical after truncation"
FEWER_THAN_TWO = "fewer than two different responses"
NO_RESPONSE = "no response left"
NOT_SCORED = "responses without scores"
TEMPLATE = "chat template refuses"
PROMPT_CUT = "prompt cut"
RESPONSE_CUT = "response cut"
NULL_OR_MISSING = "null or missing, the table does not say"
TURNED = "turned round, since the label is below 1/2"
TEXT_LEFT_OUT = "text left out by the template"
ARGUMENT_UNREAD = "argument that the template does not read"


@dataclass(frozen=True)
class TokenizePolicy:
    """What to do with bad rows and long ones. Whatever is chosen, they are counted.

    Args:
        max_tokens: the most tokens of a whole conversation, prompt and response.
        overlong: pairs with a longer conversation: `drop` the pair; `truncate_prompt` from the left at a turn boundary,
            and drop the pair if that is not enough; `truncate_response` after that, from the right; or `error`. In a
            group of responses, only those that are too long are dropped.
        identical: pairs whose responses are the same, in words or in the tokens that are left, and groups without two
            different ones: `drop` or `error`.
        on_bad_row: rows that cannot be read, or that the chat template refuses: `error` or `drop`.
        ties: pairs whose annotators prefer neither response: `drop`, or `keep` them with the label 1/2.

    Raises:
        ValueError: for a number that leaves no token, and a word that is not one of these.
    """

    max_tokens: int = 1024
    overlong: Overlong = "drop"
    identical: Literal["drop", "error"] = "drop"
    on_bad_row: Literal["error", "drop"] = "error"
    ties: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        check_counts(1, max_tokens=self.max_tokens)
        check_words(("drop", "truncate_prompt", "truncate_response", "error"), overlong=self.overlong)
        check_words(("drop", "error"), identical=self.identical)
        check_words(("error", "drop"), on_bad_row=self.on_bad_row)
        check_words(("drop", "keep"), ties=self.ties)
