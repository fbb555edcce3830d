"""Estimate how many labels are wrong, from votes on pairs that the voters were not trained on. It knows only arrays.

Voters that are sure of a pair are right about it; where they are, and the label says otherwise, the label is wrong.
With c the size of a vote, a label that is wrong with probability e whatever the pair, and a sign that is right with
probability `sigmoid(b c)`, the label agrees with the sign with probability

    P(agree | c) = e + (1 - 2 e) sigmoid(b c)

which is 1/2 where c is 0 and 1 - e where c is large. b and e are found by maximum likelihood, e's interval is that of
the profile likelihood. A voter that has been trained on a pair leans to its label, and then e is too small: such pairs
must be left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CHI_SQUARE_95 = 3.841458820694124
"""Twice the log likelihood falls by this much at the ends of a 95 % interval (one degree of freedom)."""

WIDEST = 0.3
"""A wider interval says next to nothing."""

FEWEST = 500
"""The fewest pairs to estimate from: with fewer, an interval is narrow only by chance, and then misses. With synthetic
votes on 150 pairs, 25 % of them labelled wrong, 93 % of all intervals hold the share, but only 43 % of those that are
narrow enough; on 600 pairs it is 94 % and 87 %."""

SLOPES = np.geomspace(0.05, 50, 121)
"""b, in units of one over the votes' root mean square."""

SHARES = np.linspace(0.0, 0.5, 501)
"""e."""


class WrongLabels(NamedTuple):
    """The share of wrong labels, its 95 % interval, and on how many pairs it rests; NaN, 0 and 1/2 without pairs."""

    share: float
    low: float
    high: float
    num_pairs: int

    @property
    def is_told(self) -> bool:
        """Whether there are pairs enough, and the interval is narrow enough to go by."""
        return self.num_pairs >= FEWEST and self.high - self.low <= WIDEST


def wrong_labels(vote: ArrayLike) -> WrongLabels:
    """Estimate the share of wrong labels.

    Args:
        vote: (N,) mean of the votes on each pair, of voters that were not trained on it; NaN where a pair has none.

    Returns:
        The estimate, from 0 to 1/2: beyond one half labels and their opposite cannot be told apart.
    """
    vote = np.asarray(vote, np.float64)
    vote = vote[~np.isnan(vote)]
    size = math.sqrt(float(np.mean(vote**2))) if len(vote) else 0.0
    if size == 0:
        return WrongLabels(math.nan, 0.0, 0.5, len(vote))
    profile = np.full(len(SHARES), -np.inf)
    for right, agrees in _by_size(np.abs(vote) / size, vote > 0):
        likely = SHARES[:, None] + (1 - 2 * SHARES[:, None]) * right
        profile = np.maximum(profile, np.log(likely) @ agrees[0] + np.log1p(-likely) @ agrees[1])
    inside = SHARES[profile >= profile.max() - CHI_SQUARE_95 / 2]
    return WrongLabels(float(SHARES[profile.argmax()]), float(inside[0]), float(inside[-1]), len(vote))


def _by_size(size: Floats, agrees: NDArray[np.bool_]) -> list[tuple[Floats, tuple[Floats, Floats]]]:
    """Return for every slope, by bin of sizes (B,), how likely the sign is right, and how many labels agree and do not.

    Pairs of about the same size stand in one bin: a million of them cost no more than two hundred.
    """
    order = np.argsort(size, kind="stable")
    bins = [part for part in np.array_split(order, min(200, len(order))) if len(part)]
    middle = np.array([size[part].mean() for part in bins])
    num = np.array([len(part) for part in bins], np.float64)
    num_agree = np.array([agrees[part].sum() for part in bins], np.float64)
    return [
        (np.clip(1 / (1 + np.exp(-slope * middle)), 0, 1 - 1e-12), (num_agree, num - num_agree)) for slope in SLOPES
    ]
