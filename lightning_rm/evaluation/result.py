"""`Evaluation`: what came out, as plain numbers, tables and files. It knows no model and no benchmark's rules."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from lightning_rm.data.store.cache import draft_of
from lightning_rm.evaluation.measure import Comparison, Figure, Row


@dataclass(frozen=True)
class ModelResult:
    """One model on one benchmark.

    Args:
        row: what it is worth.
        num_cut: conversations that were cut to fit.
        num_left_out: items that were left out, too long even so, or related to one that was.
        longest: tokens of the longest conversation.
        swap: the check with the responses of every item in the other order; see `checks.swapped`.
        diagnostics: where they were asked for.
        rewards: the file of its rewards by item, where there is one.
    """

    row: Row
    num_cut: int = 0
    num_left_out: int = 0
    longest: int = 0
    swap: dict[str, float] = field(default_factory=dict[str, float])
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

    def rows(self) -> dict[str, Row]:
        """Models and then controls by name."""
        return {**{name: result.row for name, result in self.models.items()}, **self.controls}


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Args:
        benchmarks: name -> result.
        failed: `MODEL` or `MODEL on BENCHMARK` -> what went wrong; it cost the others nothing.
        settings: what intervals and cuts were made with.
    """

    benchmarks: dict[str, BenchmarkResult]
    failed: dict[str, str] = field(default_factory=dict[str, str])
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def __getitem__(self, name: str) -> BenchmarkResult:
        return self.benchmarks[name]

    def value(self, model: str, benchmark: str, section: str = "overall") -> float:
        """One figure of one model."""
        return self.benchmarks[benchmark].models[model].row.sections[section].value

    def table(self, width: int | None = None) -> Any:
        """Tables of models by sections, for a terminal (`rich.print`) or a notebook, in percent.

        Args:
            width: columns of the terminal; None for what it has.
        """
        from lightning_rm.evaluation.tables import Tables

        return Tables(self, width)

    def markdown(self) -> str:
        """The same tables in Markdown."""
        from lightning_rm.evaluation.tables import markdown

        return markdown(self)

    def records(self) -> list[dict[str, Any]]:
        """One flat row for each benchmark, model or control, and section, details too, as fractions."""
        return [
            {
                "benchmark": result.name,
                "model": name,
                "section": section,
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                **{
                    rule: table.get(section)
                    for rule, table in (("strict", row.strict), ("half", row.half), ("ties", row.tie))
                },
            }
            for result in self.benchmarks.values()
            for name, row in result.rows().items()
            for section, figure in [*row.sections.items(), *((f"({key})", value) for key, value in row.summary.items())]
        ]

    def plain(self) -> dict[str, Any]:
        """Everything as JSON has it; what is not a number is null."""
        return cast(
            dict[str, Any],
            _plain(
                {
                    "benchmarks": {name: _benchmark(result) for name, result in self.benchmarks.items()},
                    "failed": self.failed,
                    "settings": self.settings,
                }
            ),
        )

    def write(self, folder: str | Path) -> list[Path]:
        """Write `evaluation.json`, `evaluation.csv` and `evaluation.md`, each whole or not at all.

        Returns:
            The files.
        """
        text = io.StringIO()
        records = self.records()
        columns = ["benchmark", "model", "section", "value", "low", "high", "strict", "half", "ties"]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in record.items()} for record in records)
        written = {
            "evaluation.json": json.dumps(self.plain(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            "evaluation.csv": text.getvalue(),
            "evaluation.md": self.markdown(),
        }
        for name, content in written.items():
            with draft_of(Path(folder) / name) as draft:
                draft.write_text(content, encoding="utf-8")
        return [Path(folder) / name for name in written]


def _benchmark(result: BenchmarkResult) -> dict[str, Any]:
    return {
        "title": result.title,
        "aggregate": result.aggregate,
        "num_items": result.num_items,
        "notes": result.notes,
        "sections": result.sections,
        "models": {
            name: {
                **_row(one.row),
                "num_cut": one.num_cut,
                "num_left_out": one.num_left_out,
                "longest": one.longest,
                "swap": one.swap,
                "diagnostics": one.diagnostics,
                "rewards": one.rewards,
            }
            for name, one in result.models.items()
        },
        "controls": {name: _row(row) for name, row in result.controls.items()},
        "comparisons": [
            {
                "first": pair.first,
                "second": pair.second,
                "difference": {name: asdict(figure) for name, figure in pair.difference.items()},
                "mcnemar": {**asdict(pair.test), "p_adjusted": pair.p_adjusted},
            }
            for pair in result.comparisons
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    def section(name: str, figure: Figure) -> dict[str, float | None]:
        ties = {"strict": row.strict, "half": row.half, "ties": row.tie}
        return {**asdict(figure), **{rule: table[name] for rule, table in ties.items() if name in table}}

    return {
        "sections": {name: section(name, figure) for name, figure in row.sections.items()},
        "summary": {name: asdict(figure) for name, figure in row.summary.items()},
        "more": row.more,
    }


def _plain(value: object) -> object:
    """A value as strict JSON can write it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[object]", value)]
    return value


def percent(value: float) -> str:
    """`61.2` of .612; empty for what is not a number."""
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def span(figure: Figure) -> str:
    """`58.1–64.0`, a figure's interval in percent."""
    return "" if math.isnan(figure.low) else f"{percent(figure.low)}–{percent(figure.high)}"


def shown_notes(evaluation: Evaluation, result: BenchmarkResult) -> Iterator[str]:
    """What stands under a benchmark's table."""
    yield from result.notes
    if any(name == "overall" for name in result.sections):
        yield f"overall: {result.aggregate}"
    for name, one in result.models.items():
        if one.num_cut:
            yield f"{name}: {one.num_cut:,} conversations cut to fit (longest {one.longest:,} tokens)"
        if one.num_left_out:
            yield f"{name}: {one.num_left_out:,} of {result.num_items:,} items left out, too long to read"
        if one.swap and not one.swap["holds"]:
            yield (
                f"{name}: WARNING: with the two responses exchanged the accuracy is {one.swap['swapped']:.4f}, and not "
                f"1 - {one.swap['accuracy']:.4f}: its rewards depend on the order of what is scored"
            )
    for name, message in evaluation.failed.items():
        if name.endswith(f" on {result.name}") or " on " not in name:
            yield f"FAILED: {name}: {message}"
