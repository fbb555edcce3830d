"""The choice of the responses that a policy learns from, by their rewards: the best of n, or a rejection sample.

Distillation fine-tunes the policy on them as text; no gradient of a reward is ever taken. This file knows groups and
rewards; no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lightning_rm.counts import check_positive
from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.synthetic.draws import Draws

Choose = Callable[[Sequence[float], Draws], list[int]]
"""A rule: from the rewards of one prompt's responses, and its own random numbers, to the places to learn from."""


def best_of_n(rewards: Sequence[float], draws: Draws) -> list[int]:
    """Return the place of the highest reward, the first of equal ones."""
    return [max(range(len(rewards)), key=rewards.__getitem__)]


@dataclass(frozen=True)
class Rejection:
    """A choice that accepts a response with probability `exp((r - r_max) / beta)`, where r_max is its prompt's highest.

    What is accepted is a sample of `policy * exp(r / beta)`, the policy that has the highest reward less beta times its
    KL divergence from the sampled one (arXiv 2309.06657, section 3.3), as far as r_max is known from n responses. The
    best is always accepted.

    Args:
        beta: in units of the reward: the smaller, the nearer to the best of n.

    Raises:
        ValueError: if it is not above 0.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        check_positive(beta=self.beta)

    def __call__(self, rewards: Sequence[float], draws: Draws) -> list[int]:
        """Return the places of the accepted ones."""
        most = max(rewards)
        return [
            place for place, reward in enumerate(rewards) if draws.uniform() < math.exp((reward - most) / self.beta)
        ]


@dataclass
class Choice:
    """What was chosen.

    Args:
        pairs: each a chosen response against the response of lowest reward to the same prompt that says something, and
            something else: the first is text to learn, and the two are a pair to compare.
        num_groups: how many prompts there were.
        num_equal: of those whose rewards were all equal: nothing tells their responses apart, and none is learned.
        num_left_out: responses that had no reward.
        num_not_learned: chosen responses that say nothing, or have nothing beside them to be a pair with.
    """

    pairs: list[PairRow] = field(default_factory=list[PairRow])
    num_groups: int = 0
    num_equal: int = 0
    num_left_out: int = 0
    num_not_learned: int = 0


def choose_responses(
    groups: Sequence[GroupRow], rewards: Sequence[Sequence[float | None]], choose: Choose, seed: int
) -> Choice:
    """Choose from every group the responses that the policy is to learn.

    Args:
        groups: P prompts, each with its responses.
        rewards: for each response its reward; None leaves it out.
        choose: `best_of_n`, or a `Rejection`.
        seed: of what is drawn; a group's choice depends on it and on the group's id alone.
    """
    choice = Choice(num_groups=len(groups))
    for group, all_rewards in zip(groups, rewards, strict=True):
        places = [place for place, reward in enumerate(all_rewards) if reward is not None]
        known = [reward for reward in all_rewards if reward is not None]
        choice.num_left_out += len(all_rewards) - len(known)
        if not known or min(known) == max(known):
            choice.num_equal += 1
            continue
        texts = [group.responses[place][-1]["content"].strip() for place in places]
        said: set[str] = set()
        for place in choose(known, Draws("choose", seed, group.id)):
            text = texts[place]
            if text in said:  # of equal texts one is enough
                continue
            said.add(text)
            others = [other for other in range(len(texts)) if texts[other] not in ("", text)]
            if not text or not others:
                choice.num_not_learned += 1
                continue
            pair = group.pair(places[place], places[min(others, key=known.__getitem__)])
            choice.pairs.append(replace(pair, id=f"{group.id}-{places[place]}"))
    return choice


def shaped(
    rewards: Sequence[float | None],
    responses: Sequence[str],
    finished: Sequence[bool],
    *,
    unfinished: float | None = None,
    empty: float | None = None,
) -> list[float | None]:
    """Return rewards; those of responses that were cut off, or say nothing, are replaced where a number is set.

    Args:
        rewards: n of them.
        responses: their texts.
        finished: whether the policy ended them.
        unfinished: the reward of one that was cut off; None keeps the model's.
        empty: the reward of one without words; None keeps the model's.
    """
    found: list[float | None] = []
    for reward, response, ended in zip(rewards, responses, finished, strict=True):
        if unfinished is not None and not ended:
            reward = unfinished
        found.append(empty if empty is not None and not response.strip() else reward)
    return found
