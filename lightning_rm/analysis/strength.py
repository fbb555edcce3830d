"""Preference strength by group, as figures 2 and 3 of arXiv 2401.06080 show it, and its correlation with the truth.

Truth, where it is known, is an array of True, False and NaN (or None) where nobody knows. It knows arrays alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Groups(NamedTuple):
    """Pairs in groups of equal size from the weakest to the strongest, each field (num_groups,).

    `mean`, `std` and `gold_margin` are means over a group, `clean` is the share of its pairs whose chosen response is
    truly better. Means are over the pairs that have a value, NaN where none has.
    """

    num_pairs: Ints
    mean: Floats
    std: Floats
    clean: Floats
    gold_margin: Floats


class UShape(NamedTuple):
    """Where the standard deviation is least, and what it is there and in the outermost groups."""

    group: int
    weakest: float
    minimum: float
    strongest: float


class Agreement(NamedTuple):
    """How often an independent label agrees with the data's, by group of strength; arrays are (num_groups,).

    `error` is the binomial standard error `sqrt(p (1 - p) / n)` of `share`, which is 0 where all pairs agree.
    """

    mean: Floats
    share: Floats
    error: Floats
    num_pairs: Ints


class Correlation(NamedTuple):
    """Correlation of two quantities over the pairs that have both."""

    pearson: float
    spearman: float
    num_pairs: int


def grouped(
    mean: ArrayLike,
    std: ArrayLike,
    clean: ArrayLike | None = None,
    gold_margin: ArrayLike | None = None,
    num_groups: int = 20,
) -> Groups:
    """Cut the pairs in groups of equal size by strength (arXiv 2401.06080, section 2.2 and figure 2).

    Args:
        mean: (N,) strength; pairs without one (NaN) are in no group.
        std: (N,) standard deviation of the votes.
        clean: (N,) whether the chosen response is truly better.
        gold_margin: (N,) true margin of chosen over rejected.
        num_groups: 20 are the paper's groups of 5%.

    Raises:
        ValueError: if there are fewer pairs than groups, or no groups.
    """
    mean = np.asarray(mean, np.float64)
    has_votes = ~np.isnan(mean)
    group = _groups(mean[has_votes], num_groups)
    values = (np.full(len(mean), np.nan) if given is None else given for given in (mean, std, clean, gold_margin))
    means = (_means(group, np.asarray(column, np.float64)[has_votes], num_groups) for column in values)
    return Groups(np.bincount(group, minlength=num_groups), *means)


def u_shape(groups: Groups) -> UShape:
    """Tell whether voters agree less on the weakest and on the strongest pairs (arXiv 2401.06080, figure 2)."""
    group = int(np.argmin(groups.std))
    return UShape(group, *(float(groups.std[index]) for index in (0, group, -1)))


def agreement(mean: ArrayLike, agrees: ArrayLike, num_groups: int = 20) -> Agreement:
    """Say how often an independent label agrees with the data's, by strength (arXiv 2401.06080, figure 3).

    Args:
        mean: (N,) strength.
        agrees: (N,) whether the other label prefers the chosen response too; pairs without it are in no group.
        num_groups: of equal size.

    Raises:
        ValueError: if there are fewer such pairs than groups, or no groups.
    """
    mean, agrees = np.asarray(mean, np.float64), np.asarray(agrees, np.float64)
    known = ~np.isnan(mean) & ~np.isnan(agrees)
    groups = grouped(mean[known], np.zeros(known.sum()), agrees[known], num_groups=num_groups)
    error = np.sqrt(groups.clean * (1 - groups.clean) / groups.num_pairs)
    return Agreement(groups.mean, groups.clean, error, groups.num_pairs)


def correlation(mean: ArrayLike, gold_margin: ArrayLike) -> Correlation:
    """Return Pearson's and Spearman's correlation of strength with the true margin, tied values sharing their mean
    rank.

    Args:
        mean: (N,) strength.
        gold_margin: (N,) true margin of chosen over rejected; pairs without one (NaN) are left out.

    Raises:
        ValueError: if fewer than two pairs have both, or one of the two does not vary.
    """
    mean, gold_margin = known_pairs(mean, gold_margin)
    if len(mean) < 2 or np.ptp(mean) == 0 or np.ptp(gold_margin) == 0:
        raise ValueError(f"no correlation over {len(mean)} pairs: give two or more, of different values")
    first, second = torch.from_numpy(mean), torch.from_numpy(gold_margin)
    return Correlation(float(pearson_corrcoef(first, second)), float(spearman_corrcoef(first, second)), len(mean))


def known_pairs(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    """Return the pairs that have both values."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    known = ~np.isnan(first) & ~np.isnan(second)
    return first[known], second[known]


def _groups(mean: Floats, num_groups: int) -> Ints:
    """Return (N,), the group of each pair, `rank * num_groups // N`; equal values rank as they stand."""
    if not 1 <= num_groups <= len(mean):
        raise ValueError(f"{len(mean)} pairs with strength cannot be cut in {num_groups} groups")
    group = np.empty(len(mean), np.int64)
    group[np.argsort(mean, kind="stable")] = np.arange(len(mean)) * num_groups // len(mean)
    return group


def _means(group: Ints, values: Floats, num_groups: int) -> Floats:
    """Return (num_groups,), the mean over the values of each group that are not NaN."""
    known = ~np.isnan(values)
    counts = np.bincount(group[known], minlength=num_groups)
    return np.bincount(group[known], values[known], num_groups) / np.where(counts > 0, counts, np.nan)
