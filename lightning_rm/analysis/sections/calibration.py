"""Whether rewards mean what they say: reliability, and NLL after a temperature fitted on other pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from lightning_rm.analysis.calibration import Reliability, reliability
from lightning_rm.analysis.evidence import Evidence
from lightning_rm.analysis.methods import Block, Method
from lightning_rm.analysis.page.blocks import Cell, Drawing, Drawings, Section, Table, Text
from lightning_rm.analysis.paired import paired_difference
from lightning_rm.analysis.plots.comparison import reliability_of_methods
from lightning_rm.analysis.plots.style import Key
from lightning_rm.analysis.runs import told_mean
from lightning_rm.analysis.sections.results import NUM_DRAWN, file_name, signed_interval, tone
from lightning_rm.analysis.study import Study
from lightning_rm.analysis.tempered import Tempered, cross_tempered, tempered
from lightning_rm.counts import number_of

VALIDATION = "val"


def calibration_section(study: Study) -> Section:
    """Write NLL as it is and after a temperature, with paired differences, and reliability of every set."""
    sets = study.recorded()
    tests = [name for name in sets if name.startswith("test")] or sets
    tested = {name: _tempered(study, name) for name in tests}
    rows = [row for name, by_method in tested.items() for row in _rows(study, name, by_method)]
    bins = {name: _bins(study, name) for name in tests[:NUM_DRAWN]}
    drawings = [
        Drawing(file_name("reliability", name), reliability_of_methods(found), f"{name}: accuracy by confidence")
        for name, found in bins.items()
        if found
    ]
    drawn = dict.fromkeys(key for found in bins.values() for key in found)
    if not rows and not drawings:
        return Section("Calibration", [], "No run has kept the rewards of its pairs.")
    blocks = [
        Text(
            "NLL moves with the scale of rewards alone, so that methods are compared after a temperature, which each "
            "run is given by its own validation pairs, and without any by one half of the prompts for the other, and "
            "the other way round. Above 1 it says that rewards were too sure. Where those pairs are all right, or no "
            "better than chance, no scale makes them likeliest: such a run has no temperature and no NLL after it."
        ),
        Table(rows, "NLL in nats: mean ± standard deviation over runs; paired differences with their 95 % interval"),
        *([Drawings(drawings, list(drawn))] if drawings else []),
        Text("On the dashed line rewards are right as often as they say. Pairs of all runs of a method are pooled."),
    ]
    return Section("Calibration", blocks)


def _tempered(study: Study, name: str) -> dict[str, dict[Block, Tempered]]:
    """Method -> block -> the run's NLL; one whose rewards are not finite is left out, and the list of runs names it."""
    return {
        method.name: {block: _of_run(one, name) for block, one in study.of(method).items() if one.is_finite(name)}
        for method in study.methods
    }


def _of_run(one: Evidence, name: str) -> Tempered:
    """Return a run's NLL of a test set by its validation pairs; by halves of its own prompts without any."""
    validation = [
        records for key, records in one.records.items() if key.partition("/")[0] == VALIDATION and one.is_finite(key)
    ]
    if validation and name.partition("/")[0] != VALIDATION:
        return tempered(one.records[name], validation)
    return cross_tempered(one.records[name])


def _rows(study: Study, name: str, by_method: Mapping[str, Mapping[Block, Tempered]]) -> list[dict[str, Cell | str]]:
    rows: list[dict[str, Cell | str]] = []
    reference = by_method[study.reference.name]
    for method in study.methods:
        runs = by_method[method.name]
        if not runs:
            continue
        row: dict[str, Cell | str] = {"method": method.name, "set": name, "runs": Cell(str(len(runs)), is_number=True)}
        before = {block: run.nll for block, run in reference.items()}
        row["NLL"] = _cell(method, study, {block: run.nll for block, run in runs.items()}, before)
        fitted = {block: run for block, run in runs.items() if not math.isnan(run.after)}
        without = Counter(run.lacks for run in runs.values() if run.lacks)
        if fitted or without:
            temperatures = [run.temperature for run in fitted.values()]
            note = "; ".join(f"{number_of(num, 'run')} without: {lack}" for lack, num in without.items())
            row["temperature"] = Cell(told_mean(temperatures, 2) if fitted else "–", note, is_number=True)
        if fitted:
            row["NLL after it"] = _cell(
                method,
                study,
                {block: run.after for block, run in fitted.items()},
                {block: run.after for block, run in reference.items() if not math.isnan(run.after)},
            )
        rows.append(row)
    return rows


def _cell(method: Method, study: Study, values: Mapping[Block, float], reference: Mapping[Block, float]) -> Cell:
    found = None if method is study.reference else paired_difference(dict(values), dict(reference))
    text = told_mean(list(values.values()))
    return Cell(text, is_number=True) if found is None else Cell(text, signed_interval(found), tone(found, "nll"), True)


def _bins(study: Study, name: str) -> dict[Key, Reliability]:
    """Key of a method -> reliability of the pairs of all its runs."""
    found: dict[Key, Reliability] = {}
    for method in study.methods:
        kept = [one.records[name] for one in study.of(method).values() if one.is_finite(name)]
        if kept:
            margin = np.concatenate([records.margin for records in kept])
            found[study.key(method)] = reliability(margin, np.concatenate([records.label for records in kept]))
    return found
