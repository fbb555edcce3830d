"""Intervals by the normal distribution: how far one reaches, and Wilson's of a share. It knows numbers alone."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def normal_reach(level: float = 0.95) -> float:
    """Return within how many standard deviations of its mean such a share of a normal distribution lies: 1.96.

    Args:
        level: the share, between 0 and 1.
    """
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(successes: ArrayLike, num: ArrayLike) -> tuple[Floats, Floats]:
    """Return Wilson's score interval of a share, 95 % (Wilson 1927, J. Am. Stat. Assoc. 22); 0 to 1 of nothing.

        8 of 10  ->  between 0.490 and 0.943

    Args:
        successes: counts.
        num: how many each is counted out of.
    """
    successes, num = np.asarray(successes, np.float64), np.asarray(num, np.float64)
    reach = normal_reach()
    square = reach**2
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(num > 0, successes / num, 0.5)
        middle = (share * num + square / 2) / (num + square)
        half = reach * np.sqrt(share * (1 - share) * num + square / 4) / (num + square)
    low, high = (
        np.minimum(middle - half, share),
        np.maximum(middle + half, share),
    )  # rounding alone could put the share outside
    is_none = num == 0
    return np.where(is_none, 0.0, np.maximum(low, 0)), np.where(is_none, 1.0, np.minimum(high, 1))
