"""Results of models on a benchmark, and how their figures and notes are written. It knows no model and no rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_rm.evaluation.benchmarks.benchmark import OVERALL
from lightning_rm.evaluation.measure import Comparison, Figure, Row

NO_INTERVAL = "n/a"


@dataclass(frozen=True)
class ModelResult:
    """One model on one benchmark.

    Args:
        row: what it is worth.
        num_cut: conversations that were cut to fit.
        num_left_out: items that were left out because they, or related ones, cannot be cut to fit.
        longest: tokens of the longest conversation.
        remarks: what the model's chat template does not write or read of items -> of how many.
        swap: the check with the responses of every item in the other order; see `checks.swapped`.
        members: of an ensemble, or of members of one backbone, what each is worth alone, in the main figure.
        diagnostics: where they were asked for.
        rewards: the file of its rewards by item, where there is one.
    """

    row: Row
    num_cut: int = 0
    num_left_out: int = 0
    longest: int = 0
    remarks: Mapping[str, int] = field(default_factory=dict[str, int])
    swap: dict[str, float] = field(default_factory=dict[str, float])
    members: list[float] = field(default_factory=list[float])
    diagnostics: dict[str, Any] = field(default_factory=dict[str, Any])
    rewards: str | None = None


@dataclass(frozen=True)
class BenchmarkResult:
    """All models on one benchmark.

    Args:
        name: of the benchmark.
        title: as its paper calls it.
        aggregate: what `overall` is.
        num_items: how many were read.
        notes: what is missing of the whole benchmark, and what was left out.
        models: name -> result.
        controls: `length only` and `random rewards`.
        comparisons: of every two models.
    """

    name: str
    title: str
    aggregate: str
    num_items: int
    notes: list[str]
    models: dict[str, ModelResult]
    controls: dict[str, Row]
    comparisons: list[Comparison]

    @property
    def sections(self) -> list[str]:
        """The sections that tables show; details, `A/b`, stand in the files alone."""
        rows = [*(result.row for result in self.models.values()), *self.controls.values()]
        return [name for name in dict.fromkeys(name for row in rows for name in row.sections) if "/" not in name]

    @property
    def compared(self) -> str:
        """The figure that models are compared in: `overall` where one of them has it, else the first one's main."""
        mains = [result.row.main for result in self.models.values()]
        return OVERALL if OVERALL in mains else mains[0]

    def rows(self) -> dict[str, Row]:
        """Return models and then controls by name."""
        return {**{name: result.row for name, result in self.models.items()}, **self.controls}


def percent(value: float) -> str:
    """Write .612 as `61.2`, and NaN as nothing."""
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def span(figure: Figure) -> str:
    """Write a figure's interval in percent, `58.1–64.0`; `n/a` for one without an interval."""
    if math.isnan(figure.low):
        return "" if math.isnan(figure.value) else NO_INTERVAL
    return f"{percent(figure.low)}–{percent(figure.high)}"


def points(figure: Figure, sign: int = 1) -> str:
    """Write the interval of a difference in points: `-1.2 to +3.4`; `n/a` for one without, nothing for NaN."""
    if math.isnan(figure.low):
        return "" if math.isnan(figure.value) else NO_INTERVAL
    low, high = sorted((sign * figure.low, sign * figure.high))
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _no_interval(result: BenchmarkResult) -> bool:
    """Tell whether the tables have a figure without an interval."""
    rows = result.rows().values()
    figures = [one for row in rows for part in (row.sections, row.summary) for one in part.values()]
    return any(math.isnan(one.low) and not math.isnan(one.value) for one in figures)


def shown_failures(result: BenchmarkResult, names: Iterable[str], failed: Mapping[str, str]) -> Iterator[str]:
    """Yield what failed, as far as it is to stand under a benchmark's table: all but what failed on another one that
    has a table too.

    Args:
        result: of the benchmark.
        names: of all benchmarks that have a table.
        failed: as `Evaluation` has it.
    """
    ends = tuple(f" on {name}" for name in names if name != result.name)
    yield from (f"FAILED: {name}: {message}" for name, message in failed.items() if not name.endswith(ends))


def shown_notes(result: BenchmarkResult) -> Iterator[str]:
    """Yield what stands under a benchmark's table, beside what failed."""
    yield from result.notes
    if OVERALL in result.sections:
        yield f"overall: {result.aggregate}"
    if _no_interval(result):
        yield f"{NO_INTERVAL}: no interval: all draws give one figure (of one prompt, of one draw, or of prompts alike)"
    for name, one in result.models.items():
        if one.members:
            mean = sum(one.members) / len(one.members)
            yield (
                f"{name}: as one of {len(one.members)} members; alone they have {percent(mean)} on average "
                f"({percent(min(one.members))} to {percent(max(one.members))})"
            )
        if one.num_cut:
            yield f"{name}: {one.num_cut:,} conversations cut to fit (longest {one.longest:,} tokens)"
        if one.num_left_out:
            yield f"{name}: {one.num_left_out:,} of {result.num_items:,} items left out, too long to read"
        for remark, count in one.remarks.items():
            yield f"{name}: {count:,} items with {remark}"
        if one.swap and not one.swap["holds"]:
            yield (
                f"{name}: WARNING: with the two responses exchanged the accuracy is {one.swap['swapped']:.4f}, and not "
                f"1 - {one.swap['accuracy']:.4f}: its rewards depend on the order of what is scored"
            )
