"""What a model's rewards are like: where they lie, how they spread, how sure their differences are.

Bradley-Terry rewards have no zero and no unit of their own. Whoever adds them to other rewards, or trains a policy on
them, needs the mean and the spread on a reference set; whoever reads a margin as a probability needs the temperature.
It knows arrays; no model and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_rm.losses.temperature import best_temperature
from lightning_rm.metrics.alone import stand_alone
from lightning_rm.metrics.intervals import wilson

SECTION = "lightning_rm"
"""The key of `config.json` under which the package keeps what transformers does not know."""

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Reference:
    """The rewards of a reference set.

    Args:
        name: of the set.
        mean: of the rewards of all its responses.
        std: their standard deviation (of the population).
        num_rewards: how many there are.
        temperature: rewards divided by it have calibrated differences; None where the set has no pairs.
        num_left_out: pairs of the set that are too long for the model.
    """

    name: str
    mean: float
    std: float
    num_rewards: int
    temperature: float | None = None
    num_left_out: int = 0

    @classmethod
    def of_pairs(cls, name: str, chosen: Floats, rejected: Floats, label: Floats) -> Reference:
        """Make a reference of the rewards of pairs, each argument (P,).

        A response by itself stands there as both of its pair, with the label 1/2: it counts once, and tells nothing of
        a temperature. Nor do margins that are all right, or worse than chance, which no scale makes likeliest.

        Raises:
            ValueError: if there are no pairs, or a reward is not finite.
        """
        alone = stand_alone(chosen, rejected, label)
        rewards = np.concatenate([chosen, rejected[~alone]]).astype(np.float64)
        margin = torch.from_numpy(np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64))
        temperature, _ = best_temperature(margin, torch.from_numpy(np.asarray(label, np.float64)))
        return cls(name, float(rewards.mean()), float(rewards.std()), len(rewards), temperature)

    def without(self, num_pairs: int) -> Reference:
        """Return the same with so many more pairs counted as left out, because they are too long for the model."""
        return replace(self, num_left_out=num_pairs)

    def settings(self) -> dict[str, Any]:
        """Return what `config.json` says of it: under our key, and as `mean` and `std`, which OpenRLHF reads."""
        ours = {
            "reward_mean": self.mean,
            "reward_std": self.std,
            "reference": {"name": self.name, "num_rewards": self.num_rewards, "num_left_out": self.num_left_out},
        }
        if self.temperature is not None:
            ours["temperature"] = self.temperature
        return {SECTION: ours, "mean": self.mean, "std": self.std}


class Interval(NamedTuple):
    """A share and its 95 % interval."""

    value: float
    low: float
    high: float


def share_interval(successes: float, number: int) -> Interval:
    """Return Wilson's score interval of a share, for items that are independent; ties count one half.

        8 of 10  ->  0.8, between 0.490 and 0.943

    Args:
        successes: how many of them.
        number: of items, 1 or more.
    """
    low, high = wilson(successes, number)
    return Interval(successes / number, float(low), float(high))


def accuracy_interval(chosen: Floats, rejected: Floats, label: Floats) -> Interval:
    """Say how often the preferred response has the higher reward; a tie counts one half, a label of one half is no
    pair.

    Raises:
        ValueError: if there is no pair.
    """
    margin = np.asarray(chosen, np.float64) - np.asarray(rejected, np.float64)
    side = np.sign(np.asarray(label, np.float64) - 0.5)
    decided = side != 0
    if not decided.any():
        raise ValueError("there is no pair with a preferred response")
    right = 0.5 + 0.5 * np.sign(margin[decided]) * side[decided]
    return share_interval(float(right.sum()), int(decided.sum()))


def stored(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a configuration holds under our key; empty where it holds nothing."""
    found: Mapping[str, Any] | None = config.get(SECTION)
    return found or {}
