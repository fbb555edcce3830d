"""The policy for conversations that are too long or the same twice: what is cut, what is left out, under which name.

A prompt is cut at a turn boundary, alike for all of its responses: the oldest turns go, a leading system message stays,
and what is left begins with a user turn. A response is cut only when asked for by name, in words, so that its ids are
those of the conversation that is left. This file knows pairs, groups of responses and token counts; it knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import GroupRow, Message, PairRow
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS, encode_texts, render

AnyRow = TypeVar("AnyRow", PairRow, GroupRow)

Overlong = Literal["drop", "truncate_prompt", "truncate_response", "error"]

OVERLONG = "overlong"
IDENTICAL = "identical responses"
IDENTICAL_CUT = "identical after truncation"
FEWER_THAN_TWO = "fewer than two different responses"
TEMPLATE = "chat template refuses"
PROMPT_CUT = "prompt cut"
RESPONSE_CUT = "response cut"


@dataclass(frozen=True)
class TokenizePolicy:
    """What to do with the bad and the long. Whatever is chosen, it is counted.

    Args:
        max_tokens: the most tokens of a whole conversation, prompt and response.
        overlong: pairs with a longer conversation: `drop` the pair; `truncate_prompt` from the left at a turn boundary,
            and drop the pair if that is not enough; `truncate_response` after that, from the right; or `error`. Of a
            group of responses, only those are dropped that are too long.
        identical: pairs whose responses are the same, in words or in the tokens that are left, and groups without two
            different ones: `drop` or `error`.
        on_bad_row: rows that cannot be read, or that the chat template refuses: `error` or `drop`.

    Raises:
        ValueError: for a word that is none of these.
    """

    max_tokens: int = 1024
    overlong: Overlong = "drop"
    identical: Literal["drop", "error"] = "drop"
    on_bad_row: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no token; it must be at least 1")
        for name, value, words in (
            ("overlong", self.overlong, ("drop", "truncate_prompt", "truncate_response", "error")),
            ("identical", self.identical, ("drop", "error")),
            ("on_bad_row", self.on_bad_row, ("error", "drop")),
        ):
            if value not in words:
                raise ValueError(f"{name}={value!r}; it must be one of {', '.join(words)}")


@dataclass
class Draft(Generic[AnyRow]):
    """A prompt and its responses on their way to token ids; their conversations may be cut until they fit.

    Args:
        row: the pair or the group as it was read.
        place: its place among all rows of its source.
        prompt: what is left of the prompt.
        responses: what is left of each response's turns, chosen before rejected.
        ids: token ids of the conversations.
        prompt_length: how many tokens of each are the prompt's.
        changes: what was cut.
        failure: what the chat template said against it.
    """

    row: AnyRow
    place: int
    prompt: tuple[Message, ...]
    responses: list[tuple[Message, ...]]
    ids: list[list[int]] = field(default_factory=list[list[int]])
    prompt_length: int = 0
    changes: set[str] = field(default_factory=set[str])
    failure: str = ""

    @property
    def num_tokens(self) -> int:
        """Tokens of the longest conversation."""
        return max(map(len, self.ids))


def left_out_for(draft: Draft[PairRow], max_tokens: int) -> tuple[str, str] | None:
    """The reason to leave a pair out and what was found, None for a pair that is kept."""
    if draft.row.chosen == draft.row.rejected:
        return IDENTICAL, "chosen and rejected are the same text"
    if draft.failure:
        return TEMPLATE, draft.failure
    if draft.num_tokens > max_tokens:
        return OVERLONG, f"{draft.num_tokens:,} tokens, max_tokens={max_tokens:,}"
    if draft.ids[0] == draft.ids[1]:
        reason = IDENTICAL_CUT if RESPONSE_CUT in draft.changes else IDENTICAL
        return reason, f"chosen and rejected are the same {len(draft.ids[0]):,} tokens"
    return None


def fit(
    rows: Sequence[tuple[int, AnyRow]], tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy
) -> list[Draft[AnyRow]]:
    """Encode pairs or groups, cutting what the policy lets be cut until they fit or nothing is left to cut.

    Args:
        rows: the rows of a chunk and their places in their source; every call of the tokenizer is for the whole chunk.
        tokenizer: a fast tokenizer with a chat template.
        policy: `max_tokens` and `overlong` are used here.

    Returns:
        One draft a row, in order.
    """
    drafts = [Draft(row, place, row.prompt, _responses(row)) for place, row in rows]
    pending = drafts
    while pending:
        _encode(pending, tokenizer)
        pending = [
            draft
            for draft in pending
            if not draft.failure and draft.num_tokens > policy.max_tokens and _shorten(draft, tokenizer, policy)
        ]
    _measure_prompts([draft for draft in drafts if draft.prompt and not draft.failure], tokenizer)
    return drafts


def _responses(row: PairRow | GroupRow) -> list[tuple[Message, ...]]:
    return [row.chosen, row.rejected] if isinstance(row, PairRow) else list(row.responses)


def _encode(drafts: Sequence[Draft[AnyRow]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the ids of every draft: templates one by one, the distinct texts through the tokenizer in one call."""
    texts = [_texts(draft, [(*draft.prompt, *response) for response in draft.responses], tokenizer) for draft in drafts]
    distinct = list(dict.fromkeys(text for conversations in texts for text in conversations))
    ids = dict(zip(distinct, encode_texts(tokenizer, distinct), strict=True))
    for draft, conversations in zip(drafts, texts, strict=True):
        draft.ids = [ids[text] for text in conversations]


def _measure_prompts(drafts: Sequence[Draft[AnyRow]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the prompt's length: tokens that a rendered prompt shares with all of its conversations.

    Not the tokens that the conversations share: responses that begin alike do not lengthen their prompt. A row whose
    prompt alone the template refuses is a bad one, though it may take the conversations.
    """
    texts = [_texts(draft, [draft.prompt], tokenizer, is_prompt=True) for draft in drafts]
    distinct = list(dict.fromkeys(text for prompt in texts for text in prompt))
    prompts = dict(zip(distinct, encode_texts(tokenizer, distinct), strict=True))
    for draft, prompt in zip(drafts, texts, strict=True):
        for text in prompt:  # none where the template refused it, and the row has failed
            shared = (common_prefix(prompts[text], ids) for ids in draft.ids)
            draft.prompt_length = min(*shared, *(len(ids) - 1 for ids in draft.ids))


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Leading tokens that two sequences share: 2 for `1 2 3` and `1 2 4`."""
    shorter = min(len(first), len(second))
    return next((place for place in range(shorter) if first[place] != second[place]), shorter)


def _texts(
    draft: Draft[AnyRow],
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    is_prompt: bool = False,
) -> list[str]:
    """The conversations rendered; none, and a failure, if the template refuses this row's turns or arguments."""
    row = draft.row
    try:
        return [
            render(tokenizer, conversation, row.tools, row.chat_template_kwargs, is_prompt=is_prompt)
            for conversation in conversations
        ]
    except TEMPLATE_ERRORS as error:
        draft.failure = f"{type(error).__name__}: {error}"
        return []


def _shorten(draft: Draft[AnyRow], tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy) -> bool:
    """Make the next cut; False if the policy allows none or nothing is left to cut."""
    if policy.overlong in ("truncate_prompt", "truncate_response") and _cut_prompt(draft):
        draft.changes.add(PROMPT_CUT)
        return True
    if policy.overlong == "truncate_response" and _cut_responses(draft, tokenizer, policy.max_tokens):
        draft.changes.add(RESPONSE_CUT)
        return True
    return False


def _cut_prompt(draft: Draft[AnyRow]) -> bool:
    """Drop the oldest turns up to the next user turn: `S U A U` becomes `S U`; False if there is no later user turn."""
    roles = [message["role"] for message in draft.prompt]
    start = next((place for place, role in enumerate(roles) if role != "system"), len(roles))
    cut = next((place for place in range(start + 1, len(roles)) if roles[place] == "user"), None)
    if cut is None:
        return False
    draft.prompt = (*draft.prompt[:start], *draft.prompt[cut:])
    return True


def _cut_responses(draft: Draft[AnyRow], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> bool:
    """Take as many tokens off the end of each long response's last turn as it has too many; False if it has no more."""
    for place, ids in enumerate(draft.ids):
        excess = len(ids) - max_tokens
        if excess <= 0:
            continue
        *before, last = draft.responses[place]
        content = last["content"]
        encoded: Any = tokenizer(content, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets: list[tuple[int, int]] = encoded["offset_mapping"]
        # A token may be a part of a character, whose end is then no cut at all: at least one character goes.
        end = min(offsets[-excess - 1][1], len(content) - 1) if len(offsets) > excess else 0
        if end == 0:
            return False
        draft.responses[place] = (*before, {"role": last["role"], "content": content[:end]})
    return True
