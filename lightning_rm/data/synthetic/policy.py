"""A policy of the made world that can drift from the one whose responses were labelled, and groups of its responses.

RLHF moves a policy away from the data that its reward model was trained on: its answers become better, so that two of
them differ by less, and they take on a style of their own. `shift` says how far, from 0 (the policy of the training
pairs) to 1. Measured on 4,000 prompts of split `test`:

    shift                                                 0      0.25   0.5    0.75   1
    mean gold reward of a response                        8.88   8.99   9.13   9.25   9.39
    mean |gold difference| of two responses of a group    1.45   1.36   1.23   1.09   0.92
    their share without a difference                      0.29   0.32   0.37   0.41   0.46
    mean |gold difference| of a `SyntheticSource` pair    2.00   1.91   1.76   1.65   1.52
    mean words of a response                              8.1    9.6    11.1   12.6   14.1

This file knows tasks, responses and their gold rewards. It knows no annotator: nothing here is labelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import get_args

from lightning_rm.counts import check_counts
from lightning_rm.data.rows import GroupRow, Message
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.prompts import Split, sample_prompt
from lightning_rm.data.synthetic.responses import Style, sample_response, sample_style
from lightning_rm.data.synthetic.tasks import Task, gold_reward
from lightning_rm.digests import key_digest
from lightning_rm.options import check_words

FLAW_RATES = (0.0, 0.1, 0.3, 0.6)
"""Flaw rates of a response of the training pairs, drawn evenly: from perfect to poor."""
DRIFTED_FLAW_RATES = (0.05, 0.1, 0.2)
"""Flaw rates of a drifted response: few flaws, and nearly as many in one response as in another."""

FAVOURITE_STYLE = Style("here you are:", "i hope this helps.", ", then ", ", then ", "lovely")
"""The style that a policy drifts to: a long one. Training has each of its parts, but all of them together in at most
one response of 5,000."""


@dataclass(frozen=True)
class Policy:
    """Who answers prompts: how good the answers are, and in which style they come.

    Args:
        shift: the probability that the flaw rate of a response is a drifted one, and, for each part of its style, that
            it is the favourite. At 0 nothing more is drawn than the undrifted policy draws.

    Raises:
        ValueError: if it is not between 0 and 1.
    """

    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= 1:
            raise ValueError(f"shift is {self.shift}; it says how far the policy has drifted, from 0 to 1")

    def style(self, draws: Draws) -> Style:
        """Return a style, drawn without looking at task or answer."""
        style = sample_style(draws)
        if self._drifts(draws):
            style = replace(style, opening=FAVOURITE_STYLE.opening)
        if self._drifts(draws):
            style = replace(style, closing=FAVOURITE_STYLE.closing)
        if self._drifts(draws):
            separators = {"separator": FAVOURITE_STYLE.separator, "last_separator": FAVOURITE_STYLE.last_separator}
            style = replace(style, **separators)
        if self._drifts(draws):
            style = replace(style, praise=FAVOURITE_STYLE.praise)
        return style

    def response(self, task: Task, style: Style, draws: Draws) -> str:
        """Return an answer to a task in a style, with as many flaws as this policy makes."""
        flaw_rate = draws.choice(DRIFTED_FLAW_RATES if self._drifts(draws) else FLAW_RATES)
        return sample_response(task, flaw_rate, style, draws)

    def _drifts(self, draws: Draws) -> bool:
        return self.shift > 0 and draws.chance(self.shift)


@dataclass(frozen=True)
class SyntheticGroups:
    """Groups of responses of the made world's policy, with their gold rewards: a `GroupSource`.

    Group i answers the prompt of pair i of a `SyntheticSource` of the same split and seed, whatever the shift. The
    responses are sampled one by one, so two of a group may be the same, as any policy's may: with k=5 in 1 group of 500
    at shift 0, in 1 of 11 at shift 1. All gold rewards are equal in 1 group of 28 at shift 0, in 1 of 7 at shift 1.

    Args:
        num_prompts: how many groups.
        k: responses a group.
        split: `train`, `val`, `test` (the same prompt families, no prompt in common) or `ood` (held-out families).
        shift: how far the policy has drifted, as in `Policy`.
        seed: of everything drawn.
        scored: whether people have scored the responses, by their gold reward: then they are pairs to train on.

    Raises:
        ValueError: if a value is out of its range.
    """

    num_prompts: int
    k: int = 5
    split: Split = "train"
    shift: float = 0.0
    seed: int = 0
    scored: bool = False

    def __post_init__(self) -> None:
        Policy(self.shift)  # raises for a shift out of range
        check_words(get_args(Split), split=self.split)
        check_counts(0, num_prompts=self.num_prompts, seed=self.seed, k=self.k)
        if self.k < 2:
            raise ValueError(f"k is {self.k}; a group needs two responses at least")

    def fingerprint(self) -> str:
        """Return a digest of the options and of the first rows, so that a change to the world shows as well."""
        return _digest(self)

    def __iter__(self) -> Iterator[GroupRow]:
        return (self._row(index) for index in range(self.num_prompts))

    def _row(self, index: int) -> GroupRow:
        prompt = sample_prompt(self.split, Draws("text", self.seed, self.split, index))
        draws, policy = Draws("responses", self.seed, self.split, index), Policy(self.shift)
        responses = [policy.response(prompt.task, policy.style(draws), draws) for _ in range(self.k)]
        gold = tuple(gold_reward(prompt.task, response) for response in responses)
        return GroupRow(
            prompt=prompt.messages,
            responses=tuple((Message(role="assistant", content=response),) for response in responses),
            id=f"{self.split}-{self.seed}-{index}",
            prompt_id=prompt.id,
            scores=tuple({"score": reward} for reward in gold) if self.scored else (),
            gold=gold,
        )


@lru_cache(maxsize=64)
def _digest(source: SyntheticGroups) -> str:
    return key_digest("responses", astuple(source), [asdict(row) for row in islice(source, 64)])


SyntheticResponses = SyntheticGroups
"""The former name of the same class."""
