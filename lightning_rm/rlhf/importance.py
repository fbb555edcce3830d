"""Importance weights of pairs: from log-probabilities of their responses to weights in the loss. Pure; no model.

A reward model is trained on pairs whose responses one policy wrote, and asked about those of another. Where both
responses of a pair were drawn by the policy p that wrote them, and are now drawn by q, the density ratio of the pair is

    q(chosen | x) q(rejected | x) / (p(chosen | x) p(rejected | x))

and a mean of losses that is weighted by it estimates the mean under q (OCRM, arXiv 2507.15507). Of whole responses
these ratios span hundreds of nats, so that one pair would outweigh all others: OCRM takes a small power of them, and
the relative ratio q / (alpha q + (1 - alpha) p), which is at most 1 / alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_rm.counts import is_number

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogProbs:
    """How likely a policy is to say the responses of N pairs.

    Args:
        total: (N, 2), log-probability of chosen and of rejected, in nats.
        num_tokens: (N, 2), of the responses.
    """

    total: Floats
    num_tokens: Floats

    def means(self) -> Floats:
        """Return (N, 2), log-probabilities a token."""
        return self.total / np.maximum(self.num_tokens, 1)


@dataclass(frozen=True)
class Importance:
    """Weights of N pairs.

    Args:
        weight: (N,), of mean 1.
        clipped: (N,), whether the bound was reached.
    """

    weight: Floats
    clipped: NDArray[np.bool_]

    @property
    def effective(self) -> float:
        """The effective sample size, `(sum w)^2 / sum w^2`: how many pairs of equal weight would be worth as much."""
        return float(self.weight.sum() ** 2 / np.square(self.weight).sum())


@dataclass(frozen=True)
class Weighing:
    """How log-probabilities become weights.

    Args:
        power: of the ratios. 1 is the importance weight, 0 gives all pairs the same weight, 0.01 is OCRM's.
        relative: alpha of the relative ratio, of each response; 0 is the plain ratio, 0.1 OCRM's.
        per_token: take means over the tokens of a response in place of sums, so that long ones are not set apart by
            their length.
        clip: the largest weight, as a multiple of the mean; weights are then divided by their mean again. None for no
            bound.

    Raises:
        ValueError: if a number is out of its range.
    """

    power: float = 0.01
    relative: float = 0.1
    per_token: bool = False
    clip: float | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.power) and self.power >= 0):
            raise ValueError(f"power={self.power}; give 0 or more (1 is the whole importance weight)")
        if not (is_number(self.relative) and 0 <= self.relative < 1):
            raise ValueError(f"relative={self.relative}; give a number from 0, the plain ratio, to below 1")
        if self.clip is not None and not (is_number(self.clip) and self.clip >= 1):
            raise ValueError(f"clip={self.clip}: it bounds weights whose mean is 1; give 1 or more")

    def check_reference(self, *, is_known: bool) -> None:
        """Raise ValueError for a relative ratio where nobody knows the reference policy, which it divides by."""
        if self.relative and not is_known:
            raise ValueError(f"relative={self.relative}: there is no reference policy to divide by; set relative=0")

    def of(self, policy: LogProbs, reference: LogProbs | None) -> Importance:
        """Return the weights of N pairs, divided by their mean: `(ratio(chosen) ratio(rejected))^power`.

        Args:
            policy: the current one.
            reference: the policy that wrote the responses; None where nobody knows it: the weight is then a power of
                how likely the policy is to say both (with `per_token`, as WPO weighs them: arXiv 2406.11827).

        Raises:
            ValueError: if a relative ratio is asked for and there is no reference.
        """
        self.check_reference(is_known=reference is not None)
        own = policy.means() if self.per_token else policy.total
        if reference is None:
            log_ratio = own
        else:
            other = reference.means() if self.per_token else reference.total
            log_ratio = own - self._denominator(own, other)
        log_weight = self.power * log_ratio.sum(axis=1)
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.mean()
        if self.clip is None:
            return Importance(weight, np.zeros(len(weight), bool))
        clipped = weight > self.clip
        weight = np.minimum(weight, self.clip)
        return Importance(weight / weight.mean(), clipped)

    def _denominator(self, own: Floats, other: Floats) -> Floats:
        """Return the logarithm of what the policy's probability is divided by, of each response."""
        if not self.relative:
            return other
        return np.logaddexp(math.log(self.relative) + own, math.log1p(-self.relative) + other)
