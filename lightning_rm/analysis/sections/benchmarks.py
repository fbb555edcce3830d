"""Benchmarks as bars with their intervals, from the files that `lightning-rm evaluate` wrote."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure as Drawn

from lightning_rm.analysis.page.blocks import Block, Cell, Drawing, Drawings, Folded, Section, Table, Text
from lightning_rm.analysis.plots.comparison import bars_of_models
from lightning_rm.analysis.plots.style import BLUE, GREY, Key
from lightning_rm.analysis.sections.results import file_name
from lightning_rm.analysis.words import unlike
from lightning_rm.checksums import check_object
from lightning_rm.told import read_object

Figure = tuple[float, float, float]
"""Value and interval, NaN where there is none."""

Sections = Mapping[str, Figure]
"""Section -> its figure."""

NONE: Figure = (math.nan, math.nan, math.nan)

OVERALL, RANDOM = "overall", "random rewards"


class _Comparison(NamedTuple):
    """Two models on the same items: the difference by section, and McNemar's p."""

    first: str
    second: str
    difference: Sections
    p: float


@dataclass
class _Benchmark:
    """What the files say of one benchmark: models and controls by name, and the comparisons of two models."""

    name: str
    num_items: int
    models: dict[str, Sections] = field(default_factory=dict[str, Sections])
    controls: dict[str, Sections] = field(default_factory=dict[str, Sections])
    comparisons: list[_Comparison] = field(default_factory=list[_Comparison])

    @property
    def title(self) -> str:
        """The benchmark and its size."""
        return f"{self.name}, {self.num_items:,} items"

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
        said = (
            " ".join(dict.fromkeys(faults))
            or "No evaluation was named or lies in the runs; lightning-rm evaluate makes them."
        )
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
        *map(Text, dict.fromkeys(faults)),
    ]
    return Section("Benchmarks", blocks)


def _read(path: Path, found: dict[str, _Benchmark]) -> list[str]:
    """Add what a file says to what was found, and give what has failed in it; a broken file adds nothing."""
    told = read_object(path)
    check_object(told, path)
    read = {
        name: _Benchmark(
            str(result["title"]),
            int(result["num_items"]),
            {model: _sections(row) for model, row in result["models"].items()},
            {control: _sections(row) for control, row in result["controls"].items()},
            [_comparison(pair) for pair in result.get("comparisons", [])],
        )
        for name, result in told["benchmarks"].items()
    }
    said = [f"Failed: {what}: {why}." for what, why in told.get("failed", {}).items()]
    for name, one in read.items():
        known = found.setdefault(name, _Benchmark(one.name, one.num_items))
        if known.num_items != one.num_items:
            said.append(
                f"{path} is of {one.num_items:,} items of {one.name} and others are of {known.num_items:,}: their "
                "figures cannot be compared."
            )
        names: dict[str, str] = {}
        for model, sections in one.models.items():
            names[model] = _name(model, path, known.models)
            known.models[names[model]] = sections
        known.controls |= one.controls
        known.comparisons += [
            pair._replace(first=names.get(pair.first, pair.first), second=names.get(pair.second, pair.second))
            for pair in one.comparisons
        ]
    return said


def _name(model: str, path: Path, taken: Collection[str]) -> str:
    """Return a model's name that no other has: with the evaluation's folder, or all of its path, if there is one."""
    names = (model, f"{model} ({path.parent.name})", f"{model} ({path.parent})")
    return next((name for name in names if name not in taken), unlike(names[-1], taken))


def _comparison(pair: Mapping[str, Any]) -> _Comparison:
    difference = {section: _figure(figure) for section, figure in pair["difference"].items()}
    return _Comparison(str(pair["first"]), str(pair["second"]), difference, _number(pair["mcnemar"]["p_adjusted"]))


def _sections(row: Mapping[str, Any]) -> Sections:
    """Return a row's sections; where `overall` is missing the mean over the categories that are there comes first."""
    sections, mean = row["sections"], row.get("summary", {}).get("mean")
    every = sections if OVERALL in sections or mean is None else {"mean": mean, **sections}
    return {section: _figure(figure) for section, figure in every.items()}


def _bars(one: _Benchmark) -> Drawn:
    section = one.sections[0]
    scores = {Key(name, BLUE): row.get(section, NONE) for name, row in one.models.items()}
    scores |= {Key(name, GREY): row.get(section, NONE) for name, row in one.controls.items()}
    chance = one.controls.get(RANDOM, {}).get(section, NONE)[0]
    return bars_of_models(scores, section, None if math.isnan(chance) else chance)


def _rows(one: _Benchmark) -> Iterator[dict[str, Cell | str]]:
    for name, row in {**one.models, **one.controls}.items():
        cells: dict[str, Cell | str] = {"model": Cell(name, tone="muted" if name in one.controls else "")}
        for section in one.sections:
            value, low, high = row.get(section, NONE)
            text = "–" if math.isnan(value) else f"{value:.3f}"
            cells[section] = Cell(text, "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]", is_number=True)
        yield cells


def _pairs(one: _Benchmark) -> Iterator[dict[str, Cell | str]]:
    """Yield a row every two models: the difference of the section that is drawn, and McNemar's test."""
    for pair in one.comparisons if one.sections else []:
        difference, low, high = pair.difference.get(one.sections[0], NONE)
        interval = "" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
        yield {
            "model": pair.first,
            "less": pair.second,
            one.sections[0]: Cell("–" if math.isnan(difference) else f"{difference:+.3f}", interval, is_number=True),
            "McNemar p": Cell("" if math.isnan(pair.p) else f"{pair.p:.3g}", is_number=True),
        }


def _figure(figure: Mapping[str, float | None]) -> Figure:
    """Return a figure as an evaluation's JSON has it."""
    value, low, high = (_number(figure.get(key)) for key in ("value", "low", "high"))
    return value, low, high


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
