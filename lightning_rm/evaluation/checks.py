"""A check of a model that every evaluation makes: exchanging chosen and rejected gives one minus the accuracy.

This is mere arithmetic where every conversation's reward depends on that conversation alone. The check fails where a
reward depends on its place in a batch, on padding or on what is scored beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lightning_rm.evaluation.credit import pair_credit
from lightning_rm.evaluation.items import Floats, Items

NUM_ITEMS = 32
TOLERANCE = 1e-3
"""A margin this small, in standard deviations of the margins, may change its sign by rounding."""


def spread_over(items: Items, num: int, left_out: np.ndarray | None = None) -> Items:
    """Return at most `num` of the items that count, evenly spaced."""
    there = np.arange(len(items)) if left_out is None else np.flatnonzero(~left_out)
    return items.take(there[np.unique(np.linspace(0, len(there) - 1, min(num, len(there)), dtype=int))])


def exchanged(items: Items) -> Items:
    """Return the same items with their responses in reverse order and nothing known of them."""
    return Items(replace(item, responses=item.responses[::-1], gold=item.gold[::-1], pairs=()) for item in items)


def swapped(items: Items, score: Callable[[Items], Floats]) -> dict[str, float]:
    """Score some items as they are and with their responses exchanged, and compare the accuracies.

    Args:
        items: a few dozen.
        score: items to (N, K) rewards, through the whole way from words to numbers.

    Returns:
        `accuracy` and, of the exchanged responses under the same labels, `swapped`, ties half; `difference`, the
        largest change of a reward; `holds`, 1 where swapped = 1 - accuracy, margins within rounding of 0 apart, else 0.
    """
    rewards, other_way = score(items), score(exchanged(items))
    num = np.isfinite(items.gold).sum(axis=1)[:, None]
    place = np.where(np.isfinite(items.gold), num - 1 - np.arange(rewards.shape[1]), 0)
    again = np.where(np.isfinite(items.gold), np.take_along_axis(other_way, place, axis=1), np.nan)
    comparisons = items.comparisons
    margin, margin_again = comparisons.margins(rewards), comparisons.margins(again)
    accuracy = float(pair_credit(margin, "half").mean())
    other = float(pair_credit(-margin_again, "half").mean())
    within_rounding = float((np.abs(margin) <= TOLERANCE * (margin.std() or 1.0)).mean())
    return {
        "accuracy": accuracy,
        "swapped": other,
        "difference": float(np.nanmax(np.abs(rewards - again))),
        "holds": float(abs(other - (1 - accuracy)) <= within_rounding + 1e-9),
    }
