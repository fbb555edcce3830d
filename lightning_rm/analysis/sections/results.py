"""Methods by test sets: mean and spread over runs, and what each differs from the reference by, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lightning_rm.analysis.methods import Method
from lightning_rm.analysis.page.blocks import Block, Cell, Drawing, Drawings, Folded, Section, Table, Text, Tone
from lightning_rm.analysis.paired import Difference, paired_difference, runs_needed
from lightning_rm.analysis.plots.comparison import difference_intervals, runs_of_methods
from lightning_rm.analysis.runs import told_mean
from lightning_rm.analysis.study import LOWER_IS_BETTER, NEITHER_IS_BETTER, Study
from lightning_rm.analysis.words import metric_words, unlike

METRICS = ("accuracy", "gold_correlation", "difference", "score_rank_correlation", "loss", "perplexity")
"""What is compared where nothing else is asked for, as far as a test set has it: pairs, groups of responses, scored
responses, text."""

SMALLEST = 0.02
"""The difference for which the number of runs is told."""

COLUMNS = ("method", "set", "pairs", "difference", "95 % interval", "p", "verdict", f"runs for {SMALLEST:g}")
"""Of the paired differences, in order."""

NUM_DRAWN = 6
"""Test sets that have figures; of more, tables alone."""


def results_section(study: Study, metrics: Sequence[str] | None = None) -> Section:
    """Return every metric's table, its figures, the paired differences, and the subsets of each set.

    Args:
        study: of the runs.
        metrics: by name; `METRICS` where none are named.

    Raises:
        ValueError: if a named metric is in no result.
    """
    asked = metrics or METRICS
    stage = "test" if any(study.sets(metric) for metric in asked) else "val"
    blocks: list[Block] = []
    if stage == "val":
        blocks.append(Text("No run has a test set. These are validation sets, by which weights were chosen."))
    found = {metric: sets for metric in asked if (sets := study.sets(metric, stage))}
    if metrics is not None and (unknown := [metric for metric in metrics if metric not in found]):
        raise ValueError(f"metrics: no run has a result {unknown[0]!r}; take one of {', '.join(_known(study))}")
    for metric, sets in found.items():
        blocks += _blocks(study, metric, sets)
    if not found:
        if not any(one.results for one in study.evidence.values()):
            return Section("Results", [], "No run has come to its end: no results.", compares=True)
        told = "The runs measured no test set and no validation set: nothing can be compared."
        return Section("Results", [], told, compares=True)
    return Section("Results", blocks, _lead(study, next(iter(found)), stage), compares=True)


def _known(study: Study) -> list[str]:
    """Return every metric of a set as a whole."""
    sets = [metrics for one in study.evidence.values() for metrics in one.results.values()]
    return sorted({key for metrics in sets for key in metrics if "/" not in key})


def file_name(*parts: str) -> str:
    """Return the name of a figure's file."""
    return "_".join(parts).replace("/", "_")


def _lead(study: Study, metric: str, stage: str) -> str:
    """Return what can be told of the first metric, in words."""
    if not study.others:
        return "One method, nothing to compare it with."
    compared = [
        (method, name, found)
        for name in study.sets(metric, stage)
        for method in study.others
        if (found := _difference(study, method, name, metric)) is not None
    ]
    if not compared:
        return (
            f"No method was measured on a data set, world and seed that {study.reference.name} was measured on too: "
            "nothing can be compared."
        )
    told = [
        f"{method.name} is {_better(found, metric)} on {name} by {abs(found.mean):.3f} "
        f"({_interval(found)}, {found.num} pairs of runs)"
        for method, name, found in compared
        if found.verdict != "cannot be told"
    ]
    if not told:
        return f"In {metric}, no difference from {study.reference.name} can be told from zero."
    return f"Against {study.reference.name}: {'; '.join(told)}. No other difference can be told from zero."


def _blocks(study: Study, metric: str, sets: Sequence[str]) -> list[Block]:
    caption = f"{metric_words(metric)}: mean ± standard deviation over runs"
    if study.others:
        caption += f"; beneath, the paired difference from {study.reference.name} with its 95 % interval"
    rows = [
        {
            "method": Cell(method.name, "reference" if method is study.reference and study.others else ""),
            "runs": Cell(str(len(method.runs)), is_number=True),
        }
        | {name: _cell(study, method, name, metric) for name in sets}
        for method in study.methods
    ]
    drawings: list[Drawing] = []
    for name in sets[:NUM_DRAWN]:
        every = {study.key(method): list(study.values(method, name, metric).values()) for method in study.methods}
        runs = {key: values for key, values in every.items() if values}
        figure = runs_of_methods(runs, metric_words(metric))
        drawings.append(Drawing(file_name("runs", metric, name), figure, f"{name}: every run, and the mean"))
        differences = {study.key(method): _difference(study, method, name, metric) for method in study.others}
        known = {key: found for key, found in differences.items() if found is not None}
        if known:
            axis = f"{metric_words(metric)} less that of {study.reference.name}"
            figure = difference_intervals(known, axis)
            seen = f"{name}: paired difference, 95 % interval; hollow where it cannot be told"
            drawings.append(Drawing(file_name("differences", metric, name), figure, seen))
    blocks: list[Block] = [Table(rows, caption), Drawings(drawings, in_twos=True)]
    if len(sets) > NUM_DRAWN:
        blocks.append(Text(f"Figures are of the first {NUM_DRAWN} of {len(sets)} sets; the tables have all."))
    if study.others:
        blocks.append(
            Folded("Every paired difference, and how many runs it would take", [_differences(study, metric, sets)])
        )
    subsets = [table for name in sets if (table := _subsets(study, name, metric))]
    return [*blocks, *([Folded("By subset", subsets)] if subsets else [])]


def _cell(study: Study, method: Method, name: str, metric: str) -> Cell:
    """Return mean and spread, and beneath it the difference from the reference."""
    values = list(study.values(method, name, metric).values())
    if not values:
        return Cell("–", tone="muted", is_number=True)
    text = told_mean(values)
    missing = len(method.runs) - len(values)
    note = f"{missing} of {len(method.runs)} runs have no value. " if missing else ""
    found = _difference(study, method, name, metric) if method is not study.reference else None
    if found is None:
        return Cell(text, note.strip(), is_number=True)
    return Cell(text, f"{note}{signed_interval(found)}", tone(found, metric), is_number=True)


def _difference(study: Study, method: Method, name: str, metric: str) -> Difference | None:
    return paired_difference(study.values(method, name, metric), study.values(study.reference, name, metric))


def _differences(study: Study, metric: str, sets: Sequence[str]) -> Table:
    rows: list[dict[str, Cell | str]] = []
    for name in sets:
        for method in study.others:
            found = _difference(study, method, name, metric)
            if found is None:
                rows.append(
                    dict.fromkeys(COLUMNS, "")
                    | {"method": method.name, "set": name, "verdict": Cell("no run in common", tone="muted")}
                )
                continue
            needed = runs_needed(found.spread, SMALLEST)
            rows.append(
                {
                    "method": method.name,
                    "set": name,
                    "pairs": Cell(str(found.num), is_number=True),
                    "difference": Cell(_signed(found.mean), is_number=True),
                    "95 % interval": Cell(_interval(found), is_number=True),
                    "p": Cell(_p(found.p), is_number=True),
                    "verdict": Cell(_verdict(found, metric), tone=tone(found, metric)),
                    COLUMNS[-1]: Cell(f"{needed:,}" if needed else "", is_number=True),
                }
            )
    return Table(
        rows,
        f"{metric_words(metric)} less that of {study.reference.name}, over runs of the same seed and world. Of twenty "
        f"intervals of methods that do not differ one leaves zero out. The last column: how many pairs it takes, at "
        f"the spread seen here, until the interval is {SMALLEST:g} to each side.",
    )


def _subsets(study: Study, name: str, metric: str) -> Table | None:
    """Means over runs of every subset of a set."""
    keys = dict.fromkeys(
        key for one in study.evidence.values() for key in one.results.get(name, {}) if key.endswith(f"/{metric}")
    )
    if not keys:
        return None
    rows: list[dict[str, Cell | str]] = []
    heading = unlike("subset", [method.name for method in study.methods])
    for key in keys:
        row: dict[str, Cell | str] = {heading: key.removesuffix(f"/{metric}")}
        for method in study.methods:
            values = list(study.values(method, name, key).values())
            row[method.name] = Cell(told_mean(values) if values else "", is_number=True)
        rows.append(row)
    return Table(rows, f"{name}: {metric_words(metric)} by subset, mean ± standard deviation over runs")


def _verdict(found: Difference, metric: str) -> str:
    if found.num == 1:
        return "one pair tells nothing"
    if not found.has_interval:
        return f"all {found.num} differ by the same: no spread to tell it by"
    return found.verdict if found.verdict == "cannot be told" else _better(found, metric)


def _better(found: Difference, metric: str) -> str:
    """Return `better` or `worse`; `higher` or `lower` of what is neither."""
    if metric in NEITHER_IS_BETTER:
        return found.verdict
    return "better" if (found.mean > 0) != (metric in LOWER_IS_BETTER) else "worse"


def tone(found: Difference, metric: str) -> Tone:
    """Say how a difference is toned: muted where it cannot be told, or is no merit."""
    if found.verdict == "cannot be told" or metric in NEITHER_IS_BETTER:
        return "muted"
    return "better" if _better(found, metric) == "better" else "worse"


def signed_interval(found: Difference) -> str:
    """Return a difference with its interval: `+0.012 [−0.019, +0.043]`."""
    return found.text.replace("-", "−")


def _p(value: float) -> str:
    """Return a probability: none is 0."""
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _interval(found: Difference) -> str:
    return f"[{_signed(found.low)}, {_signed(found.high)}]" if found.has_interval else ""


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
