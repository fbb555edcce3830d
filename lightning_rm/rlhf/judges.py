"""Judges: they say what a policy's responses are worth, each against another response to the same prompt.

A judge is any callable from comparisons to judgements. Two stand here: the made world's planted gold, and another
reward model. They know words; no policy and no round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from lightning_rm.counts import check_numbers, is_number
from lightning_rm.data.rows import Message
from lightning_rm.data.synthetic.reading import task_of
from lightning_rm.data.synthetic.tasks import gold_reward
from lightning_rm.digests import fingerprint
from lightning_rm.rlhf.reward_function import RewardFunction

Verdict = Literal["win", "tie", "lose"]
"""What the judged response does against the other."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A response that is judged, and another to the same prompt.

    Args:
        prompt: the conversation up to the response, oldest turn first.
        response: what is judged.
        other: what it is held against: the start policy's response, say.
        chat_template_kwargs: further arguments that the data set hands to the chat template for this prompt.
    """

    prompt: tuple[Message, ...]
    response: str
    other: str
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one comparison.

    Args:
        verdict: None where the judge gave no answer that can be read; such comparisons are counted, and left out.
        gold: what the response is worth by itself; None for judges who only compare.
        other_gold: what the other is worth.
    """

    verdict: Verdict | None
    gold: float | None = None
    other_gold: float | None = None


class Judge(Protocol):
    """Any callable from comparisons to judgements, with a digest."""

    @property
    def digest(self) -> str:
        """Changes with whatever the judgements depend on: a model's weights, an address, a protocol."""
        ...

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Judge, in order. Equal responses are a tie, and need not be asked about."""
        ...


def judged(judge: Judge, comparisons: Sequence[Comparison]) -> list[Judgement]:
    """Return what a judge says of comparisons, after a look at whether it is one judgement each, which can be counted.

    Raises:
        ValueError: if it is not: a judge may be of the user's own.
    """
    judgements = list(judge(comparisons)) if comparisons else []
    if len(judgements) != len(comparisons):
        raise ValueError(
            f"the judge gives {len(judgements):,} judgements of {len(comparisons):,} comparisons; it has to give one "
            "each, in order"
        )
    for place, judgement in enumerate(judgements):
        if judgement.verdict not in (*get_args(Verdict), None):
            raise ValueError(
                f"the judge's verdict on comparison {place} is {judgement.verdict!r}; it has to be win, tie, lose or "
                "None"
            )
        if judgement.gold is not None and not is_number(judgement.gold):
            raise ValueError(
                f"the judge's gold of comparison {place} is {judgement.gold!r}; it has to be a finite number, or None"
            )
    return judgements


@dataclass(frozen=True)
class PlantedJudge:
    """The made world's gold reward, read off the words of a response: `data.synthetic.tasks.gold_reward`.

    Args:
        tie: gold rewards no further apart than this are a tie.

    Raises:
        ValueError: if it is below 0.
    """

    tie: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(0, tie=self.tie)

    @property
    def digest(self) -> str:
        """Changes with the margin of a tie."""
        return fingerprint(judge="planted gold", tie=self.tie)[:16]

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Judge by gold rewards.

        Raises:
            ValueError: if a prompt is not of the made world.
        """
        tasks = [task_of(comparison.prompt) for comparison in comparisons]
        return [
            by_worth(gold_reward(task, compared.response), gold_reward(task, compared.other), self.tie)
            for task, compared in zip(tasks, comparisons, strict=True)
        ]


@dataclass(frozen=True)
class RewardJudge:
    """Another reward model, which sees its own chat template.

    Args:
        rewards: of the model; what it leaves out (`overlong=None`) has no verdict.
        tie: rewards no further apart than this are a tie.

    Raises:
        ValueError: if it is below 0.
    """

    rewards: RewardFunction
    tie: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(0, tie=self.tie)

    @property
    def digest(self) -> str:
        """Changes with the model's weights and template, with how rewards are made of it, and with ties."""
        return fingerprint(judge=self.rewards.digest(), tie=self.tie)[:16]

    def __call__(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Judge by rewards.

        Raises:
            ValueError: if the model cannot read a response.
        """
        if not comparisons:
            return []
        said = [(compared, text) for compared in comparisons for text in (compared.response, compared.other)]
        rewards = self.rewards(
            [compared.prompt for compared, _ in said],
            [text for _, text in said],
            chat_template_kwargs=[compared.chat_template_kwargs for compared, _ in said],
        )
        return [
            Judgement(None, own, other) if own is None or other is None else by_worth(own, other, self.tie)
            for own, other in zip(rewards[::2], rewards[1::2], strict=True)
        ]


def by_worth(gold: float, other: float, tie: float) -> Judgement:
    """Return the judgement of two responses whose worth is known.

    Args:
        gold: of the response that is judged.
        other: of the other.
        tie: two worths that are no further apart than this are a tie.
    """
    if abs(gold - other) <= tie:
        return Judgement("tie", gold, other)
    return Judgement("win" if gold > other else "lose", gold, other)
