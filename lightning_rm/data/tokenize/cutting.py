"""Cut prompts at a turn boundary, the oldest turns first, and responses from the right, until a draft fits.

A prompt is cut in the same way for all of its responses: a leading system message stays, and what is left begins with
a user turn. A response is cut as text and encoded again, so that its ids are those of the conversation that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.draft import AnyRow, Draft, encode
from lightning_rm.data.tokenize.policy import PROMPT_CUT, RESPONSE_CUT


def cut_prompts(drafts: Sequence[Draft[AnyRow]], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    """Drop the fewest of each prompt's oldest turns that make its conversations fit; if none do, all that can go.

    The search begins at the short end, where few turns are left, and doubles its steps before it halves them: what is
    rendered is about as long as what is kept, not as what was given. It assumes that fewer turns make fewer tokens.

    Args:
        drafts: encoded, all of them too long.
        tokenizer: as in `fitting.fit`.
        max_tokens: the most tokens of a conversation.
    """
    searches = [_Search(draft, cuts, 0, len(cuts) + 1) for draft in drafts if (cuts := _cuts(draft.prompt))]
    pending = searches
    while pending := [search for search in pending if search.high - search.low > 1]:
        probes = [search.probe() for search in pending]
        encode(probes, tokenizer)
        for search, probe in zip(pending, probes, strict=True):
            search.learn(probe, max_tokens)
    for search in searches:
        draft, found = search.draft, search.found
        draft.prompt, draft.texts, draft.ids, draft.failure = found.prompt, found.texts, found.ids, found.failure
        draft.changes[PROMPT_CUT] = ""


@dataclass
class _Search(Generic[AnyRow]):
    """The search for the fewest cuts that make a draft fit.

    Args:
        draft: as it was given.
        cuts: what each number of cuts leaves of the prompt, one first.
        low: the most cuts that are known to be too few.
        high: the fewest that are known to be enough; one more than there are while none is known.
    """

    draft: Draft[AnyRow]
    cuts: Sequence[tuple[int, int]]
    low: int
    high: int

    def __post_init__(self) -> None:
        self.step = 1
        self.number = 0
        self.found = self.draft

    def probe(self) -> Draft[AnyRow]:
        """Return the draft after the next number of cuts to try."""
        self.number = max((self.low + self.high) // 2, self.high - self.step)
        self.step *= 2
        start, end = self.cuts[self.number - 1]
        prompt = (*self.draft.prompt[:start], *self.draft.prompt[end:])
        return replace(self.draft, prompt=prompt, texts=[], ids=[])

    def learn(self, probe: Draft[AnyRow], max_tokens: int) -> None:
        """Record whether the probe fits. One that the template refuses ends the search like one that fits."""
        if probe.failure or probe.num_tokens <= max_tokens:
            self.high, self.found = self.number, probe
        else:
            self.low = self.number
            if self.number == len(self.cuts):
                self.found = probe


def _cuts(prompt: Sequence[Message]) -> list[tuple[int, int]]:
    """Return the range of turns that each cut drops, start and end: `S U A U A U` gives `1, 3` and `1, 5`."""
    roles = [message["role"] for message in prompt]
    start = next((place for place, role in enumerate(roles) if role != "system"), len(roles))
    return [(start, place) for place in range(start + 1, len(roles)) if roles[place] == "user"]


def cut_responses(draft: Draft[AnyRow], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> bool:
    """Cut the tokens that are too many off each long response's last turn; return False if nothing is left to cut.

    A response of which nothing is left to cut does not keep the others from being cut: of a group it alone is too long.
    """
    is_cut = False
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
        if end > 0:
            draft.responses[place] = (*before, {**last, "content": content[:end]})
            draft.changes[RESPONSE_CUT] = ""
            is_cut = True
    return is_cut
