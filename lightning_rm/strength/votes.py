"""Votes and what is made of them: mean, spread, share and rank of each pair. It knows arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
QuantileRanges = Sequence[Sequence[float]]
"""Ranges `[low, high)` of quantiles: `[[0.0, 0.1], [0.2, 0.3]]` are the weakest decile and the third."""


@dataclass(frozen=True)
class Strength:
    """What the voters say of N pairs. Every field is (N,) float64, NaN for a pair that has no votes.

    Args:
        mean: mean of the votes, signed: below 0 the voters contradict the label (arXiv 2401.06080, eq 4).
        std: their population standard deviation (divided by M, not by M - 1).
        share: share of the votes above 0, a vote of exactly 0 counting half.
        quantile: rank of the mean among the pairs that have votes, `rank / N`, in [0, 1): 0 is the weakest.
    """

    mean: Floats
    std: Floats
    share: Floats
    quantile: Floats

    @classmethod
    def of(cls, mean: ArrayLike, std: ArrayLike, share: ArrayLike) -> Strength:
        """Make a strength of its numbers; the quantile is computed here."""
        mean = np.asarray(mean, np.float64)
        return cls(mean, np.asarray(std, np.float64), np.asarray(share, np.float64), quantiles(mean))

    @classmethod
    def of_votes(cls, votes: ArrayLike) -> Strength:
        """Make a strength of votes (arXiv 2401.06080, eq 4).

        Args:
            votes: (N, M) margins; NaN where a voter has no say, such as on a pair that it was trained on.
        """
        votes = np.asarray(votes, np.float64)
        has_say = ~np.isnan(votes)
        with np.errstate(invalid="ignore"):
            num_votes = has_say.sum(1)
            mean = np.where(has_say, votes, 0.0).sum(1) / num_votes
            std = np.sqrt(np.where(has_say, (votes - mean[:, None]) ** 2, 0.0).sum(1) / num_votes)
            share = np.where(has_say, 0.5 + 0.5 * np.sign(votes), 0.0).sum(1) / num_votes
        return cls.of(mean, std, share)

    def of_rows(self, rows: NDArray[np.int64]) -> Strength:
        """Return the strength of some of the pairs, their quantiles still those among all."""
        return Strength(self.mean[rows], self.std[rows], self.share[rows], self.quantile[rows])

    def __len__(self) -> int:
        return len(self.mean)


def vote_shares(votes: NDArray[np.float64], offsets: NDArray[np.integer]) -> Floats:
    """Return the share of each pair's votes above 0, a vote of exactly 0 counting half; NaN for a pair without votes.

    Args:
        votes: (V,) the votes of all pairs, end to end; NaN where a voter has no say.
        offsets: (N + 1,) where each pair's votes begin, and where the last one's end.

    Returns:
        (N,) shares.
    """
    has_say = ~np.isnan(votes)
    credit = np.where(has_say, 0.5 + 0.5 * np.sign(votes), 0.0)
    total, num_votes = (np.diff(np.append(0, np.cumsum(values))[offsets]) for values in (credit, has_say))
    with np.errstate(invalid="ignore"):
        return total / num_votes


def quantiles(mean: ArrayLike) -> Floats:
    """Return (N,), the rank of each value among those that are not NaN, over their number: `rank / N`, in [0, 1).

    Equal values rank as they stand. NaN stays NaN.
    """
    mean = np.asarray(mean, np.float64)
    known = np.flatnonzero(~np.isnan(mean))
    if not len(known):
        return np.broadcast_to(np.nan, mean.shape)  # no memory, where nothing is annotated
    quantile = np.full(len(mean), np.nan)
    quantile[known[np.argsort(mean[known], kind="stable")]] = np.arange(len(known)) / len(known)
    return quantile


def in_ranges(quantile: Floats, ranges: QuantileRanges) -> Bools:
    """Return (N,), whether a quantile lies in one of the ranges `[low, high)`.

    Raises:
        ValueError: for a range that is empty or not within [0, 1].
    """
    inside = np.zeros(len(quantile), bool)
    for bounds in ranges:
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= 1:
            raise ValueError(
                f"{list(bounds)} is not a range of quantiles [low, high) within [0, 1], such as [0.0, 0.1]"
            )
        inside |= (quantile >= bounds[0]) & (quantile < bounds[1])
    return inside
