"""Where the doubted labels are: by subset, source, annotator, length, topic, with intervals. It knows arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightning_rm.analysis.noise import wrong_labels
from lightning_rm.publishing.facts import share_interval

Floats = NDArray[np.float64]

MAX_GROUPS = 30
"""The most groups of a table; the smaller ones stand in one row together."""

LENGTHS = (-np.inf, -50, -10, 10, 50, np.inf)
"""Bounds of the difference of two responses' words."""

OTHERS = "(others)"


def length_groups(words: Sequence[int]) -> list[str]:
    """Return names for chosen less rejected, in words: `-50 to -10`."""
    names = [
        f"{'less than' if low == -np.inf else f'{low:g} to'} {high:g}" if high != np.inf else f"{low:g} or more"
        for low, high in pairwise(LENGTHS)
    ]
    place = np.searchsorted(LENGTHS, np.asarray(words, np.float64), side="right") - 1
    return [names[one] for one in place.tolist()]


def group_rows(group: Sequence[str], mean: Floats, is_new: NDArray[np.bool_]) -> list[dict[str, object]]:
    """Return one row a group, the most doubted first.

    Args:
        group: (N,) of each pair; pairs of no group (``) are left out.
        mean: (N,) strength; NaN for a pair without votes, which counts nowhere.
        is_new: (N,) whether the voters were not trained on the pair: the estimate of wrong labels is of these alone.

    Returns:
        `doubted` is the share of labels that the voters contradict, with its 95 % interval (Wilson's, of pairs taken as
        independent); `wrong` the estimate of wrong labels, with the interval of its likelihood.
    """
    every = np.asarray(group, dtype=np.str_)
    counted = (every != "") & ~np.isnan(mean)
    mean, is_new = mean[counted], is_new[counted]
    names, place, counts = np.unique(every[counted], return_inverse=True, return_counts=True)
    labels = names.astype(object)
    labels[np.argsort(-counts, kind="stable")[MAX_GROUPS:]] = OTHERS
    labelled = labels[place]
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(labels.tolist()):
        mask = labelled == name
        doubted = share_interval(float((mean[mask] < 0).sum()), int(mask.sum()))
        wrong = wrong_labels(mean[mask & is_new])
        rows.append(
            {
                "group": str(name),
                "pairs": int(mask.sum()),
                "mean strength": float(mean[mask].mean()),
                "doubted": doubted.value,
                "doubted, low": doubted.low,
                "doubted, high": doubted.high,
                "wrong": wrong.share,
                "wrong, low": wrong.low,
                "wrong, high": wrong.high,
                "pairs of the estimate": wrong.num_pairs,
            }
        )
    return sorted(rows, key=lambda row: -float(str(row["doubted"])))
