"""What reviewed pairs say about the others: by decile of strength, how often a flip is right. It knows only arrays.

What they tell holds for the rest of a decile if the reviewed pairs were drawn by chance from it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_rm.metrics.intervals import wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class FlipPrecision(NamedTuple):
    """Reviews by decile, each field (10,), 0 the weakest.

    `num_right` and `num_wrong` count reviewed pairs by whether their label is right, `num_ties` those of equal
    responses. `precision` is the share of wrong labels among those that are right or wrong, which is how often a flip
    is right; `low` to `high` is its 95 % interval. Without such a pair they are NaN, 0 and 1.
    """

    num_pairs: Ints
    num_right: Ints
    num_wrong: Ints
    num_ties: Ints
    precision: Floats
    low: Floats
    high: Floats


class WrongShare(NamedTuple):
    """The share of wrong labels of a whole data set and its 95 % interval."""

    share: float
    low: float
    high: float


def flip_precision(decile: ArrayLike, wrong: ArrayLike, num_deciles: int = 10) -> FlipPrecision:
    """Say how often the label of a decile's pairs is wrong.

    Args:
        decile: (N,) of each pair, from 0.
        wrong: (N,) 1 where a review says that the label is wrong, 0 that it is right, 0.5 that the responses are equal,
            NaN where nobody looked.
        num_deciles: how many there are.
    """
    decile, wrong = np.asarray(decile, np.int64), np.asarray(wrong, np.float64)
    counts = [np.bincount(decile[chosen], minlength=num_deciles) for chosen in (wrong == 0, wrong == 1, wrong == 0.5)]
    right, flipped, ties = counts
    with np.errstate(invalid="ignore"):
        precision = flipped / (right + flipped)
    low, high = wilson(flipped, right + flipped)
    return FlipPrecision(np.bincount(decile, minlength=num_deciles), right, flipped, ties, precision, low, high)


def deciles_to_flip(found: FlipPrecision) -> int:
    """Say how many deciles, from the weakest up, to flip: while the whole interval of each lies above one half.

    Where a flip is right half of the time it does as much harm as good.
    """
    below = np.flatnonzero(~(found.low > 0.5))
    return int(below[0]) if len(below) else len(found.low)


def wrong_share(found: FlipPrecision) -> WrongShare:
    """Return the share of wrong labels among all pairs, each decile by its weight; a tie is not wrong.

    The interval joins Wilson's intervals of the deciles by their squared distances from the estimates (MOVER, Zou and
    Donner 2008, Statistics in Medicine 27). With two or three reviews in most deciles, as after sixty, it held the
    truth in 86 to 93 of 100 made reviews (`tests/analysis/test_flips.py`), not in 95.

    Args:
        found: of `flip_precision`.

    Returns:
        NaN where a decile has pairs and nobody has looked at any of them.
    """
    reviewed = found.num_right + found.num_ties + found.num_wrong
    has_pairs = found.num_pairs > 0
    if not has_pairs.any() or (reviewed[has_pairs] == 0).any():
        return WrongShare(math.nan, math.nan, math.nan)
    weight = found.num_pairs[has_pairs] / found.num_pairs.sum()
    wrong, reviewed = found.num_wrong[has_pairs], reviewed[has_pairs]
    share, (low, high) = wrong / reviewed, wilson(wrong, reviewed)
    below, above = (math.sqrt(np.sum((weight * (share - edge)) ** 2)) for edge in (low, high))
    estimate = float(weight @ share)
    return WrongShare(estimate, max(estimate - below, 0.0), min(estimate + above, 1.0))
