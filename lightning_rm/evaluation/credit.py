"""Credit: what a comparison of rewards is worth, by three rules that differ in ties alone.

Benchmarks disagree on exact ties, and rewards in bfloat16 tie often: near 8 they step by 1/16. So every accuracy comes
as `strict` (a tie is wrong), `half` (a tie is worth what tossing a coin is) and `tie` (the share of ties); strict and
half differ by what ties are worth. This file knows arrays alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from lightning_rm.evaluation.items import Floats, Ints, Items

Rule = Literal["own", "strict", "half", "tie"]
"""How ties count; `own` is the benchmark's own rule."""


class Credit(NamedTuple):
    """What one column of a benchmark is the mean of.

    Args:
        item: (C,) the number of the item that each value belongs to; an item may have several.
        value: (C,) credits.
    """

    item: Ints
    value: Floats


def pair_credit(margin: Floats, rule: Rule) -> Floats:
    """Return the credit of pairs, (C,), from the reward of the better response minus that of the worse; `own` is
    strict.
    """
    if rule == "tie":
        return (margin == 0).astype(np.float64)
    return (margin > 0).astype(np.float64) + (0.5 if rule == "half" else 0.0) * (margin == 0)


def best_credit(rewards: Floats, gold: Floats, rule: Rule) -> Floats:
    """Return the credit of choosing the best response of each item.

    Args:
        rewards: (N, K), NaN where there is no response.
        gold: (N, K), 1 for the one right response, 0 for others, NaN where there is none.
        rule: `half` shares the credit among the m responses of the highest reward, 1/m, which is the mean over random
            orders of them; `strict` asks that the right one be above all others. `own` is strict.

    Returns:
        (N,) credits: rewards (1, 1, 0, -1) with the first one right are worth 0 strictly, 1/2 shared.
    """
    right = np.nanmax(np.where(gold == 1, rewards, np.nan), axis=1)
    others = np.where(gold == 1, -np.inf, np.where(np.isnan(gold), -np.inf, rewards))
    highest = others.max(axis=1)
    if rule == "tie":
        return (right == highest).astype(np.float64)
    if rule == "half":
        num_equal = 1 + (others == right[:, None]).sum(axis=1)
        return np.where(right >= highest, 1 / num_equal, 0.0)
    return (right > highest).astype(np.float64)


def together(columns: Iterable[Credit]) -> Credit:
    """Return all credits of some columns as one."""
    return Credit(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def by_subset(items: Items, credit: Floats) -> dict[str, Credit]:
    """Return one column per subset, in order of name, from one credit per item."""
    return {name: Credit(rows, credit[rows]) for name, rows in items.rows_of.items()}
