"""Measure rewards on a benchmark: its sections with intervals, three accuracies, what length and chance would give.

A model, the length of its responses and random numbers are all rewards here, and pass through the same functions. This
file knows a benchmark's functions and arrays; no model and no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lightning_rm.evaluation.benchmarks.benchmark import MEAN, OVERALL, Benchmark
from lightning_rm.evaluation.credit import Credit, Rule
from lightning_rm.evaluation.items import Floats, Items, check_finite
from lightning_rm.evaluation.statistics import (
    McNemar,
    bootstrap_means,
    column_means,
    holm,
    interval,
    mcnemar,
    random_means,
)

LOW_QUANTILE = 0.25
"""Of the categories: it predicts policies better than the mean does (PPE, arXiv 2410.14872)."""

LENGTH_ONLY, RANDOM = "length only", "random rewards"


@dataclass(frozen=True)
class Figure:
    """A value with its interval (95 %), NaN where draws are all alike; of the random control that of the draws."""

    value: float
    low: float
    high: float


NO_FIGURE = Figure(math.nan, math.nan, math.nan)
"""In the place of one that a row lacks."""


def is_known(figure: Figure) -> bool:
    """Tell whether a figure is there: its value is a number."""
    return not math.isnan(figure.value)


@dataclass(frozen=True)
class Row:
    """What one model, or a control, is worth on a benchmark.

    Args:
        sections: section -> its figure by the benchmark's own rule.
        strict: section -> the share of comparisons that are right, a tie being wrong.
        half: section -> the same with a tie as a toss of a coin.
        tie: section -> the share of ties.
        summary: `mean`, `lowest` and `lower quartile` over the benchmark's categories.
        more: figures without intervals that the benchmark adds.
        draws: section, and `mean` -> (B,) over the bootstrap's draws, the same draws for every model.
    """

    sections: dict[str, Figure]
    strict: dict[str, float] = field(default_factory=dict[str, float])
    half: dict[str, float] = field(default_factory=dict[str, float])
    tie: dict[str, float] = field(default_factory=dict[str, float])
    summary: dict[str, Figure] = field(default_factory=dict[str, Figure])
    more: dict[str, float] = field(default_factory=dict[str, float])
    draws: dict[str, Floats] = field(default_factory=dict[str, Floats], repr=False)

    @property
    def main(self) -> str:
        """The one figure to compare models by: `overall`; where a category is missing, the mean over those there."""
        return OVERALL if OVERALL in self.sections else MEAN if MEAN in self.summary else next(iter(self.sections))

    def figure(self, name: str) -> Figure:
        """Return a section, or a figure of the summary; NaN for one that it lacks."""
        return {**self.summary, **self.sections}.get(name, NO_FIGURE)


def measure(
    benchmark: Benchmark,
    items: Items,
    rewards: Floats,
    *,
    model: str = "the model",
    left_out: NDArray[np.bool_] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Row:
    """Return what (N, K) rewards are worth on the N items of a benchmark.

    Args:
        benchmark: whose rules count.
        items: what was asked.
        rewards: (N, K), NaN where there is no response.
        model: what errors call it.
        left_out: (N,) items that count for nothing; all of a cluster, or none.
        num_draws: of the bootstrap over clusters.
        seed: of the draws.

    Raises:
        ValueError: if a reward that counts is not finite, naming the row; if no item counts.
    """
    there = np.ones(len(items), bool) if left_out is None else ~left_out
    nothing = f"{model}: no item of {benchmark.name} is left to measure on"
    if not there.any():
        raise ValueError(nothing)
    check_finite(items, np.where(there[:, None], rewards, 0.0), model)

    def columns(rule: Rule) -> dict[str, Credit]:
        return counted(benchmark.columns(items, rewards, rule), there)

    own = columns("own")
    values = benchmark.combine(column_means(own))
    if not values:  # as of votes for neither answer alone, which PPE's accuracy leaves out
        raise ValueError(nothing)
    draws = benchmark.combine(bootstrap_means(own, items.cluster, num_draws, seed))
    if (mean := mean_of_categories(benchmark, draws)) is not None:
        draws = {**draws, MEAN: mean}
    by_rule = {rule: benchmark.combine(column_means(columns(rule))) for rule in ("strict", "half", "tie")}
    more = benchmark.more(items, rewards) if benchmark.more is not None and there.all() else {}
    return Row(
        sections={name: _figure(value, draws[name]) for name, value in values.items()},
        summary=_summary(benchmark, values, draws),
        more=more,
        draws=draws,
        **{rule: {name: float(value) for name, value in found.items()} for rule, found in by_rule.items()},
    )


def mean_of_categories(benchmark: Benchmark, sections: Mapping[str, Floats]) -> Floats | None:
    """Return the plain mean over the categories that are there; None if there are fewer than two."""
    found = [sections[name] for name in benchmark.categories if name in sections]
    return np.mean(found, axis=0) if len(found) > 1 else None


def counted(columns: Mapping[str, Credit], there: NDArray[np.bool_]) -> dict[str, Credit]:
    """Return columns without the credits of items that count for nothing."""
    if there.all():
        return dict(columns)
    kept = {name: there[credit.item] for name, credit in columns.items()}
    return {name: Credit(credit.item[kept[name]], credit.value[kept[name]]) for name, credit in columns.items()}


def length_row(benchmark: Benchmark, items: Items, num_draws: int, seed: int) -> Row:
    """Return the control that prefers the response of more characters."""
    return measure(benchmark, items, items.length, model=LENGTH_ONLY, num_draws=num_draws, seed=seed)


def random_row(benchmark: Benchmark, items: Items, num_draws: int, seed: int = 0) -> Row:
    """Return the control of random rewards: the mean over draws, and the interval that 95 % of them lie in."""
    means = random_means(lambda rewards: benchmark.columns(items, rewards, "own"), items.conversation, num_draws, seed)
    draws = benchmark.combine(means)
    values = {name: np.asarray(drawn.mean()) for name, drawn in draws.items()}
    sections = {name: _figure(value, draws[name]) for name, value in values.items()}
    return Row(sections=sections, summary=_summary(benchmark, values, draws), draws=draws)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same items.

    Args:
        first: name of one model; where it is better, `difference` is positive.
        second: name of the other.
        difference: section -> first less second, with the interval of the paired draws.
        test: McNemar's, on which of two responses is preferred, over all comparisons of the benchmark, strictly.
        p_adjusted: its p adjusted for the number of pairs of models (Holm).
    """

    first: str
    second: str
    difference: dict[str, Figure]
    test: McNemar
    p_adjusted: float


def compare(
    items: Items, rows: Mapping[str, Row], rewards: Mapping[str, Floats], left_out: Mapping[str, NDArray[np.bool_]]
) -> list[Comparison]:
    """Return every pair of models, in the order of the rows.

    Where two models left out different items, the test compares them on what both were measured on, and their
    difference is that of their figures, each on what it was measured on.
    """
    right = {name: items.comparisons.margins(rewards[name]) > 0 for name in rows}
    there = {name: ~left_out[name][items.comparisons.item] for name in rows}
    pairs = list(combinations(rows, 2))
    both = [there[first] & there[second] for first, second in pairs]
    tests = [
        mcnemar(right[first][shared], right[second][shared])
        for (first, second), shared in zip(pairs, both, strict=True)
    ]
    adjusted = holm([test.p for test in tests])
    return [
        Comparison(first, second, _differences(rows[first], rows[second]), test, p)
        for (first, second), test, p in zip(pairs, tests, adjusted, strict=True)
    ]


def _differences(first: Row, second: Row) -> dict[str, Figure]:
    """Return the differences section by section, and that of the main figure where it is not a section."""
    figures, others = ({**row.sections, row.main: row.figure(row.main)} for row in (first, second))
    return {
        name: _figure(np.asarray(figure.value - others[name].value), first.draws[name] - second.draws[name])
        for name, figure in figures.items()
        if name in others
    }


def _figure(value: Floats, draws: Floats) -> Figure:
    bounds = interval(draws)
    return Figure(float(value), bounds.low, bounds.high)


def _summary(benchmark: Benchmark, values: Mapping[str, Floats], draws: Mapping[str, Floats]) -> dict[str, Figure]:
    """Return mean, minimum and low quantile over the categories that are there; nothing for fewer than two."""
    if mean_of_categories(benchmark, values) is None:
        return {}
    names = [name for name in benchmark.categories if name in values]
    value, drawn = (np.stack([table[name] for name in names]) for table in (values, draws))
    return {
        MEAN: _figure(value.mean(axis=0), drawn.mean(axis=0)),
        "lowest": _figure(value.min(axis=0), drawn.min(axis=0)),
        "lower quartile": _figure(np.quantile(value, LOW_QUANTILE, axis=0), np.quantile(drawn, LOW_QUANTILE, axis=0)),
    }
