"""What all decisions say together: how far reviewers agree, and what follows for pairs that nobody has looked at.

It knows decisions and arrays, no text and no reviewer's right to see them; what it returns is what the page is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_rm.analysis.flips import deciles_to_flip, flip_precision, wrong_share
from lightning_rm.analysis.kappa import cohen_kappa
from lightning_rm.annotation.reviews import Review, Verdict
from lightning_rm.markup import visible
from lightning_rm.reviewing.order import Order
from lightning_rm.reviewing.store import answers

ENOUGH = 50
"""How many reviews it takes until there is something to say of the rest."""

WRONG = {"flip": 1.0, "keep": 0.0, "tie": 0.5}
"""Verdict -> how wrong the label is."""


def agreement(standing: Mapping[str, Mapping[str, Review]]) -> list[dict[str, Any]]:
    """Return Cohen's kappa of every two reviewers who have decided about the same pairs; skipped ones do not count.

    Args:
        standing: reviewer -> pair id -> the decision that stands.
    """
    found: list[dict[str, Any]] = []
    for (first, said), (second, other) in combinations(sorted(answers(standing).items()), 2):
        if both := [name for name in said if name in other]:
            kappa = cohen_kappa([said[name] for name in both], [other[name] for name in both])
            names = {"first": visible(first), "second": visible(second)}
            value = None if math.isnan(kappa.kappa) else kappa.kappa
            found.append({**names, "kappa": value, "observed": kappa.observed, "num_pairs": kappa.num_pairs})
    return found


def fair_sample(order: Order, verdicts: Mapping[int, Verdict], is_first: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Say how wrong the labels are of the reviewed pairs that were drawn by chance from their decile.

    Those are the pairs that the order drew by chance up to the first place that nobody has reached: what somebody
    searched for further behind is left out, and so is what stands first because it is disputed.

    Args:
        order: of N pairs.
        verdicts: row -> what the reviewers say of it together.
        is_first: (N,) by row, whether it stands for itself: rows of one id are one pair.

    Returns:
        (N,) by row: 1 wrong, 0 right, 0.5 a tie, NaN for all others.
    """
    is_reached = np.zeros(len(order.row), bool)
    is_reached[list(verdicts)] = True
    open_places = np.flatnonzero((~is_reached & is_first)[order.row])
    frontier = int(open_places[0]) if len(open_places) else len(order.row)
    wrong = np.full(len(order.row), np.nan)
    for row, verdict in verdicts.items():
        if order.fair_from[row] <= frontier and verdict != "skip":
            wrong[row] = WRONG[verdict]
    return wrong


def flips_told(decile: NDArray[np.int64], mean: NDArray[np.float64], wrong: NDArray[np.float64]) -> dict[str, Any]:
    """Say how often a flip is right by decile, which deciles to flip, and how many labels are wrong in all.

    Args:
        decile: (N,) of strength.
        mean: (N,) strength.
        wrong: (N,) as `fair_sample` returns it.
    """
    by_decile = flip_precision(decile, wrong)
    share = wrong_share(by_decile)
    num_flip = deciles_to_flip(by_decile)
    above = mean[decile >= num_flip]
    return {
        "deciles": [
            {
                "num_pairs": int(by_decile.num_pairs[one]),
                "right": int(by_decile.num_right[one]),
                "wrong": int(by_decile.num_wrong[one]),
                "tie": int(by_decile.num_ties[one]),
                "precision": None if math.isnan(by_decile.precision[one]) else float(by_decile.precision[one]),
                "low": float(by_decile.low[one]),
                "high": float(by_decile.high[one]),
            }
            for one in range(len(by_decile.low))
        ],
        "num_flip": num_flip,
        "below_mean": float(above.min()) if len(above) else None,
        "share": None if math.isnan(share.share) else list(share),
    }
