"""Benchmarks as bars with their intervals, from the files that `lightning-rm evaluate` wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_rm.analysis.page.blocks import Block, Cell, Drawing, Drawings, Folded, Section, Table, Text
from lightning_rm.analysis.plots.comparison import bars_of_models
from lightning_rm.analysis.plots.style import BLUE, GREY, Key

Models = Mapping[str, Mapping[str, Any]]
"""Model or control -> `sections`, each with `value`, `low` and `high`, as an evaluation's JSON has them."""

OVERALL = "overall"
CONTROLS = ("length only", "random rewards")


def benchmarks_section(files: Sequence[Path]) -> Section:
    """A figure and a table a benchmark; a file that cannot be read is named, and the others are used.

    Args:
        files: `evaluation.json` of one or several evaluations.
    """
    titles: dict[str, str] = {}
    models: dict[str, dict[str, Mapping[str, Any]]] = {}
    faults: list[str] = []
    for path in files:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
            for name, result in found.items():
                titles[name] = f"{result['title']}, {result['num_items']:,} items"
                rows = models.setdefault(name, {})
                for model, row in result["models"].items():
                    rows[model if model not in rows else f"{model} ({path.parent.name})"] = row["sections"]
                rows |= {control: row["sections"] for control, row in result["controls"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            faults.append(f"{path} is not an evaluation that can be read ({type(error).__name__}: {error})")
    if not models:
        said = " ".join(faults) or "No evaluation was named or lies in the runs; lightning-rm evaluate makes them."
        return Section("Benchmarks", [], said)
    drawings = [
        Drawing(f"benchmark_{name}", _bars(rows), f"{titles[name]}: {_main(rows)}, 95 % interval")
        for name, rows in models.items()
    ]
    tables = [Table(list(_rows(rows)), titles[name]) for name, rows in models.items()]
    blocks: list[Block] = [
        Drawings(drawings),
        Text("In grey what needs no model: preferring the longer response, and rewards drawn at random."),
        Folded("Every section", tables),
        *(Text(fault) for fault in faults),
    ]
    return Section("Benchmarks", blocks)


def _main(rows: Models) -> str:
    """The section that is drawn: the overall one, or the first."""
    sections = dict.fromkeys(name for row in rows.values() for name in row)
    return OVERALL if OVERALL in sections else next(iter(sections))


def _bars(rows: Models) -> Any:
    section = _main(rows)
    scores = {
        Key(name, GREY if name in CONTROLS else BLUE): _figure(row.get(section)) for name, row in _ordered(rows).items()
    }
    return bars_of_models(scores, section)


def _ordered(rows: Models) -> Models:
    """Models first, then controls."""
    return dict(sorted(rows.items(), key=lambda item: item[0] in CONTROLS))


def _rows(rows: Models) -> Iterator[dict[str, Cell | str]]:
    """A row a model; details of a section (`A/b`) are left to the evaluation's own files."""
    sections = [name for name in dict.fromkeys(name for row in rows.values() for name in row) if "/" not in name]
    for model, row in _ordered(rows).items():
        cells: dict[str, Cell | str] = {"model": Cell(model, tone="muted" if model in CONTROLS else "")}
        for name in sections:
            value, low, high = _figure(row.get(name))
            text = "–" if math.isnan(value) else f"{value:.3f}"
            cells[name] = Cell(text, "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]", is_number=True)
        yield cells


def _figure(figure: Mapping[str, float | None] | None) -> tuple[float, float, float]:
    """Value and interval, NaN where there is none."""
    found = [(figure or {}).get(key) for key in ("value", "low", "high")]
    value, low, high = (math.nan if one is None else float(one) for one in found)
    return value, low, high
