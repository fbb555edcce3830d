"""Runs by how far the policy has drifted: metrics against shift, over the test sets `shift_0`, `shift_25`, and so on.

A test set of pairs has an accuracy, one of groups of responses a difference and, with gold rewards, a correlation
with them. It reads what runs wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.analysis.plots.sweeps import metric_panels
from lightning_rm.analysis.runs import Run, by_name, mean_and_spread, over_runs, varied
from lightning_rm.analysis.table_files import write_table

SHIFTED = re.compile(r"(?:^|[/_])shift_(\d+(?:\.\d+)?)(?:_|$)")
"""The shift in per cent within a test set's name: `test/shift_50`, `test/responses_shift_50`."""

PANELS = {
    "accuracy": "accuracy (pairs)",
    "difference": "difference (groups of responses)",
    "gold_correlation": "gold correlation (groups of responses)",
}
"""Metric -> what its panel is called."""


def shift_report(runs: Sequence[Run], out: Path) -> list[Path]:
    """Draw metrics against shift, a line a recipe: the mean of its runs and their spread (for MetaRM, 2405.00438).

    What the runs of a recipe differ in beside their seeds is said. Where no pairs are called `shift_0`, those of the
    set `test` stand at 0: they were made by the policy of training.

    Args:
        runs: those of one name and one module are of one recipe.
        out: a folder.

    Returns:
        `shift.png`, `.svg`, `.csv` and `.md`.

    Raises:
        ValueError: if a run has no such test set, two of a run's sets stand at one place, or a run lacks a result that
            another of its name has.
    """
    recipes = by_name(runs)
    # recipe -> metric -> shift -> the value of every run
    found = {name: _of_runs(same) for name, same in recipes.items()}
    metrics = [metric for metric in PANELS if any(metric in by for by in found.values())]
    if without := [recipes[name][0] for name, by in found.items() if not by]:
        sets = ", ".join(sorted(without[0].results()))
        raise ValueError(
            f"{without[0].folder}: no test set is called shift_0, shift_25, ...; its sets are {sets}. "
            "Train with data=synthetic_shift or responses=synthetic, or leave it out"
        )
    several = any(len(same) > 1 for same in recipes.values())
    over = f", mean ± standard deviation over {', '.join(varied(recipes.values()) or ['seeds'])}" if several else ""
    figure = metric_panels(
        {
            PANELS[metric]: {name: over_runs(by[metric]) for name, by in found.items() if metric in by}
            for metric in metrics
        },
        "shift of the policy (%)",
        f"By the shift of the policy: {len(runs)} runs{over}",
        series="recipe",
    )
    rows: list[dict[str, object]] = []
    for name, by in found.items():
        for shift in sorted({shift for values in by.values() for shift in values}):
            row: dict[str, object] = {"recipe": name, "shift (%)": f"{shift:g}", "runs": len(recipes[name])}
            for metric in metrics:
                if shift in by.get(metric, {}):
                    row |= mean_and_spread(PANELS[metric], by[metric][shift])
            rows.append(row)
    title = f"Metrics by shift of the policy{over}"
    return [*save_figure(figure, out / "shift"), *write_table(rows, out / "shift", title)]


def shifted_sets(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[float, str]]:
    """Return metric -> shift in per cent -> the test set that it is of.

    Args:
        results: as `Run.results` gives them.

    Raises:
        ValueError: if two sets stand at one place.
    """
    sets: dict[str, dict[float, str]] = {}
    for data_set in sorted(results):
        matched = SHIFTED.search(data_set)
        if matched is None or not data_set.startswith("test/"):
            continue
        shift = float(matched[1])
        for metric in PANELS.keys() & results[data_set].keys():
            if (other := sets.setdefault(metric, {}).setdefault(shift, data_set)) != data_set:
                raise ValueError(f"{other} and {data_set} are both of shift {shift:g} and have {metric}; rename one")
    if "accuracy" in sets and "accuracy" in results.get("test", {}):
        sets["accuracy"].setdefault(0.0, "test")
    return sets


def _of_runs(runs: Sequence[Run]) -> dict[str, dict[float, list[float]]]:
    """Metric -> shift -> the value of every run."""
    sets: dict[str, dict[float, str]] = {}
    for run in runs:
        for metric, by_shift in shifted_sets(run.results()).items():
            sets.setdefault(metric, {}).update(by_shift)
    return {
        metric: {shift: [run.value(f"{data_set}/{metric}") for run in runs] for shift, data_set in by_shift.items()}
        for metric, by_shift in sets.items()
    }
