"""Intervals and tests of benchmark scores: bootstrap over clusters, random rewards, McNemar.

Pairs of one prompt are not independent, so a bootstrap draws prompts, with all their items. One set of draws serves
every model, so that the difference of two models has an interval of its own, narrower than theirs. This file knows
arrays; no benchmark and no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_rm.evaluation.credit import Credit
from lightning_rm.evaluation.items import Floats, Ints

DRAWS_AT_ONCE = 4_000_000
"""Cells of the table of draws that are in memory at a time."""

Means = dict[str, Floats]
"""Column -> its mean, a scalar, or (B,) over B draws."""


SAME = 1e-12
"""Draws that differ by less, relative to their size, differ by rounding alone."""


@dataclass(frozen=True)
class Interval:
    """The middle share of a distribution, 95 % where nothing else is said; NaN where the draws say nothing."""

    low: float
    high: float


def interval(values: Floats, level: float = 0.95) -> Interval:
    """Return the interval between the quantiles that leave half of the rest on either side; draws without a value are
    not counted.

    Draws that are all alike (of one prompt, or one draw) say nothing of the spread: an interval of no width would claim
    that there is none, and NaN stands for both ends.

    Args:
        values: (B,) of the draws.
        level: the share of the draws within.
    """
    values = values[~np.isnan(values)]
    if not len(values) or np.ptp(values) <= SAME * max(1.0, float(np.abs(values).max())):
        return Interval(math.nan, math.nan)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def column_means(columns: Mapping[str, Credit]) -> Means:
    """Return the mean of each column that has a value."""
    return {name: np.asarray(credit.value.mean()) for name, credit in columns.items() if len(credit.value)}


def bootstrap_means(columns: Mapping[str, Credit], cluster: Ints, num_draws: int, seed: int = 0) -> Means:
    """Return the means of columns over draws of clusters with replacement.

    Args:
        columns: name -> credits of items.
        cluster: (N,) the cluster of each item.
        num_draws: B, how many.
        seed: the same seed and clusters give the same draws, whatever the columns.

    Returns:
        Column -> (B,); NaN in draws that hold none of the column's items.
    """
    num_clusters = int(cluster.max()) + 1
    sums: dict[str, tuple[Ints, NDArray[Any], NDArray[Any]]] = {}
    for name, credit in columns.items():
        if len(credit.value):
            found, place = np.unique(cluster[credit.item], return_inverse=True)
            sums[name] = found, np.bincount(place, credit.value) + 0.0, np.bincount(place) + 0.0
    parts: dict[str, list[Floats]] = {name: [] for name in sums}
    for counts in cluster_draws(num_clusters, num_draws, seed):
        for name, (found, total, number) in sums.items():
            drawn = counts[:, found]
            with np.errstate(invalid="ignore"):
                parts[name].append(drawn @ total / (drawn @ number))
    return {name: np.concatenate(part) for name, part in parts.items()}


def cluster_draws(num_clusters: int, num_draws: int, seed: int) -> Iterator[Floats]:
    """Yield how often each cluster is drawn, (b, num_clusters), some draws at a time."""
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWS_AT_ONCE // num_clusters)
    for start in range(0, num_draws, at_once):
        number = min(at_once, num_draws - start)
        drawn = rng.integers(num_clusters, size=(number, num_clusters)) + num_clusters * np.arange(number)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=number * num_clusters)
        yield counts.reshape(number, num_clusters).astype(np.float64)


def random_means(
    columns_of: Callable[[Floats], Mapping[str, Credit]],
    index: NDArray[np.int64],
    num_draws: int,
    seed: int = 0,
) -> Means:
    """Return the means of columns under rewards that are drawn at random, one for each distinct conversation.

    Args:
        columns_of: (N, K) rewards -> columns.
        index: (N, K) the number of each response's conversation, -1 for none: equal texts get equal rewards, as they
            do from any model.
        num_draws: B, how many.
        seed: of the rewards.

    Returns:
        Column -> (B,).
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Floats]] = {}
    for _ in range(num_draws):
        rewards = np.where(index >= 0, rng.normal(size=int(index.max()) + 1)[index], np.nan)
        for name, mean in column_means(columns_of(rewards)).items():
            drawn.setdefault(name, []).append(mean)
    return {name: np.array(values) for name, values in drawn.items()}


@dataclass(frozen=True)
class McNemar:
    """Two models on the same comparisons.

    Args:
        only_first: comparisons that the first has right and the second wrong.
        only_second: the other way round.
        p: the exact two-sided probability of a split at least as uneven if both were equally good. It assumes that
            comparisons are independent; where several share a prompt, go by the paired interval.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Return McNemar's exact test (binomial, two-sided) of two models' verdicts, (C,) right or wrong, on the same
    comparisons.

    Of 10 comparisons that they disagree on, 8 to 2: p = 2 * P(X <= 2; 10, 1/2) = 2 * 56 / 1024 = 0.109.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only_first, only_second, binomial_p(min(only_first, only_second), only_first + only_second))


def binomial_p(num_fewer: int, num: int) -> float:
    """Return the two-sided probability of at most `num_fewer` of `num` tosses of a fair coin on one side."""
    if num == 0:
        return 1.0
    logs = np.array(
        [math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) for k in range(num_fewer + 1)]
    )
    tail = float(np.exp(np.logaddexp.reduce(logs) - num * math.log(2)))
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for how many there are (Holm's step-down), in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
