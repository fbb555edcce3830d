"""Benchmarks as bars with their intervals, from the files that `lightning-rm evaluate` wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_rm.analysis.page.blocks import Block, Cell, Drawing, Drawings, Folded, Section, Table, Text
from lightning_rm.analysis.plots.comparison import bars_of_models
from lightning_rm.analysis.plots.style import BLUE, GREY, Key
from lightning_rm.analysis.sections.results import file_name
from lightning_rm.checksums import check_object
from lightning_rm.told import read_object

Sections = Mapping[str, Mapping[str, float | None]]
"""Section -> `value`, `low` and `high`, as an evaluation's JSON has them."""

OVERALL, RANDOM = "overall", "random rewards"


@dataclass
class _Benchmark:
    """What the files say of one benchmark: models and controls by name, and the comparisons of two models."""

    title: str
    models: dict[str, Sections] = field(default_factory=dict[str, Sections])
    controls: dict[str, Sections] = field(default_factory=dict[str, Sections])
    comparisons: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])

    @property
    def sections(self) -> list[str]:
        """The overall one first; details of a section (`A/b`) are left to the evaluation's own files."""
        rows = [*self.models.values(), *self.controls.values()]
        names = [name for name in dict.fromkeys(name for row in rows for name in row) if "/" not in name]
        return sorted(names, key=lambda name: name != OVERALL)


def benchmarks_section(files: Sequence[Path]) -> Section:
    """Return a figure and tables of each benchmark; what cannot be read, or has failed, is named.

    Args:
        files: `evaluation.json` of one or several evaluations.
    """
    found: dict[str, _Benchmark] = {}
    faults: list[str] = []
    for path in files:
        try:
            faults += _read(path, found)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            faults.append(f"{path} is not an evaluation that can be read ({type(error).__name__}: {error}).")
    if not found:
        said = " ".join(faults) or "No evaluation was named or lies in the runs; lightning-rm evaluate makes them."
        return Section("Benchmarks", [], said)
    drawings = [
        Drawing(file_name("benchmark", name), _bars(one), f"{one.title}: {one.sections[0]}, 95 % interval")
        for name, one in found.items()
        if one.sections
    ]
    pairs = [Table(list(_pairs(one)), f"{one.title}: two models on the same items") for one in found.values()]
    pairs = [table for table in pairs if table.rows]
    blocks: list[Block] = [
        Drawings(drawings),
        Text("In grey what needs no model: preferring the longer response, and rewards drawn at random (dotted)."),
        Folded("Every section", [Table(list(_rows(one)), one.title) for one in found.values()]),
        *([Folded("Model against model", pairs)] if pairs else []),
        *(Text(fault) for fault in faults),
    ]
    return Section("Benchmarks", blocks)


def _read(path: Path, found: dict[str, _Benchmark]) -> list[str]:
    """Add what a file says to what was found, and give what has failed in it; a broken file adds nothing."""
    told = read_object(path)
    check_object(told, path)
    read = {
        name: _Benchmark(
            f"{result['title']}, {result['num_items']:,} items",
            {model: _sections(row) for model, row in result["models"].items()},
            {control: _sections(row) for control, row in result["controls"].items()},
            result.get("comparisons", []),
        )
        for name, result in told["benchmarks"].items()
    }
    for name, one in read.items():
        known = found.setdefault(name, _Benchmark(one.title))
        for model, sections in one.models.items():
            known.models[model if model not in known.models else f"{model} ({path.parent.name})"] = sections
        known.controls |= one.controls
        known.comparisons += one.comparisons
    return [f"Failed: {what}: {why}." for what, why in told.get("failed", {}).items()]


def _sections(row: Mapping[str, Any]) -> Sections:
    """Return a row's sections; where `overall` is missing the mean over the categories that are there comes first."""
    sections, mean = row["sections"], row.get("summary", {}).get("mean")
    return sections if OVERALL in sections or mean is None else {"mean": mean, **sections}


def _bars(one: _Benchmark) -> Figure:
    section = one.sections[0]
    scores = {Key(name, BLUE): _figure(row.get(section)) for name, row in one.models.items()}
    scores |= {Key(name, GREY): _figure(row.get(section)) for name, row in one.controls.items()}
    chance = _figure(one.controls.get(RANDOM, {}).get(section))[0]
    return bars_of_models(scores, section, None if math.isnan(chance) else chance)


def _rows(one: _Benchmark) -> Iterator[dict[str, Cell | str]]:
    for name, row in {**one.models, **one.controls}.items():
        cells: dict[str, Cell | str] = {"model": Cell(name, tone="muted" if name in one.controls else "")}
        for section in one.sections:
            value, low, high = _figure(row.get(section))
            text = "–" if math.isnan(value) else f"{value:.3f}"
            cells[section] = Cell(text, "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]", is_number=True)
        yield cells


def _pairs(one: _Benchmark) -> Iterator[dict[str, Cell | str]]:
    """Yield a row every two models: the difference of the section that is drawn, and McNemar's test."""
    for pair in one.comparisons:
        difference, low, high = _figure(pair["difference"].get(one.sections[0]))
        yield {
            "model": pair["first"],
            "less": pair["second"],
            one.sections[0]: Cell(f"{difference:+.3f}", f"[{low:+.3f}, {high:+.3f}]", is_number=True),
            "McNemar p": Cell(f"{pair['mcnemar']['p_adjusted']:.3g}", is_number=True),
        }


def _figure(figure: Mapping[str, float | None] | None) -> tuple[float, float, float]:
    """Value and interval, NaN where there is none."""
    value, low, high = (
        math.nan if one is None else float(one) for one in map((figure or {}).get, ("value", "low", "high"))
    )
    return value, low, high
