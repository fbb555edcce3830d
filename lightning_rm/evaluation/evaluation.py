"""`Evaluation`: what came out, as plain numbers, tables and files. It knows no model and no benchmark's rules."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from lightning_rm.checksums import with_checksum
from lightning_rm.drafts import write_text
from lightning_rm.evaluation.markdown import markdown
from lightning_rm.evaluation.measure import Figure, Row
from lightning_rm.evaluation.result import BenchmarkResult
from lightning_rm.evaluation.tables import Tables
from lightning_rm.told import finite


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Args:
        benchmarks: name -> result.
        failed: `MODEL` or `MODEL on BENCHMARK` -> what went wrong; the others were measured all the same.
        settings: what intervals and cuts were made with.
    """

    benchmarks: dict[str, BenchmarkResult]
    failed: dict[str, str] = field(default_factory=dict[str, str])
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    def __getitem__(self, name: str) -> BenchmarkResult:
        return self.benchmarks[name]

    def value(self, model: str, benchmark: str, section: str = "overall") -> float:
        """Return one figure of one model."""
        return self.benchmarks[benchmark].models[model].row.sections[section].value

    def table(self, width: int | None = None) -> Tables:
        """Return tables of models by sections, for a terminal (`rich.print`) or a notebook, in percent.

        Args:
            width: columns of the terminal; None for what it has.
        """
        return Tables(self.benchmarks, self.failed, width)

    def markdown(self) -> str:
        """Return the same tables in Markdown."""
        return markdown(self.benchmarks, self.failed)

    def records(self) -> list[dict[str, Any]]:
        """Return one flat row for each benchmark, model or control, and section, details too, as fractions."""
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
        """Return everything in the types of JSON; NaN and infinity become null."""
        return cast(
            dict[str, Any],
            finite(
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
        writer.writerows({key: finite(value) for key, value in record.items()} for record in records)
        written = {
            "evaluation.json": json.dumps(with_checksum(self.plain()), indent=1, ensure_ascii=False, allow_nan=False)
            + "\n",
            "evaluation.csv": text.getvalue(),
            "evaluation.md": self.markdown(),
        }
        return [write_text(Path(folder) / name, content) for name, content in written.items()]


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
                "remarks": one.remarks,
                "swap": one.swap,
                "members": one.members,
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
