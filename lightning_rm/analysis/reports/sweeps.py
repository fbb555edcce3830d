"""Runs of a sweep side by side: results against one setting, a line for each value of another. It reads their files.

Runs that agree in both settings are seeds of one point: their mean and spread are shown, and what else they differ in
is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from lightning_rm.analysis.plots.style import Series, save_figure
from lightning_rm.analysis.plots.sweeps import Band, metric_panels
from lightning_rm.analysis.runs import Run, mean_and_spread, over_runs, shown, spread, varied
from lightning_rm.analysis.table_files import write_table
from lightning_rm.globs import by_numbers


def sweep_report(
    runs: Sequence[Run], x: str, series: str | None, metrics: Sequence[str], reference: Sequence[Run], out: Path
) -> list[Path]:
    """Draw metrics against a setting of the runs, and write the same as a table.

    Args:
        runs: of the sweep.
        x: dotted key of the setting on the horizontal axis; one that is not a number for every run is drawn by name.
        series: dotted key of the setting that tells the lines apart; None for one line.
        metrics: results to draw, a panel each.
        reference: runs to draw as a horizontal band; none for no band.
        out: a folder.

    Returns:
        `sweep.png`, `.svg`, `.csv` and `.md`.

    Raises:
        ValueError: if a run has no such setting or result.
    """
    metrics = [runs[0].full_key(metric) for metric in metrics]
    at, of = [run.setting(x) for run in runs], [run.setting(series) if series else "runs" for run in runs]
    position, is_number = _positions(at)
    points: dict[str, dict[str, list[Run]]] = {name: {} for name in _positions(of)[0]}
    for run, place, name in zip(runs, at, of, strict=True):
        points[shown(name)].setdefault(shown(place), []).append(run)

    def line(same: dict[str, list[Run]], metric: str) -> Series:
        return over_runs({position[place]: [run.value(metric) for run in seeds] for place, seeds in same.items()})

    def results(same: Sequence[Run]) -> dict[str, object]:
        row: dict[str, object] = {"runs": len(same)}
        for metric in metrics:
            row |= mean_and_spread(metric, [run.value(metric) for run in same])
        return row

    def band(metric: str) -> Band:
        values = [run.value(metric) for run in reference]
        return Band(float(np.mean(values)), spread(values))

    name_of_reference = f"reference: {', '.join(sorted({run.name for run in reference}))}, {len(reference)} runs"
    differ = [key for key in varied([same for by in points.values() for same in by.values()]) if key not in (x, series)]
    title = f"{len(runs)} runs{_over(differ)}"
    few = differ if len(differ) <= 3 else [*differ[:2], f"{len(differ) - 2} other settings"]
    figure = metric_panels(
        {metric: {name: line(same, metric) for name, same in points.items()} for metric in metrics},
        x,
        f"By {x}: {len(runs)} runs{_over(few)}",
        categories=None if is_number else list(position),
        series=series,
        bands={metric: band(metric) for metric in metrics} if reference else {},
        band_name=name_of_reference,
    )
    rows: list[dict[str, object]] = [
        ({series: name} if series else {}) | {x: place} | results(same[place])
        for name, same in points.items()
        for place in position
        if place in same
    ]
    if reference:
        rows.append({series or x: name_of_reference} | results(reference))
    return [*save_figure(figure, out / "sweep"), *write_table(rows, out / "sweep", title)]


def _positions(values: Sequence[object]) -> tuple[dict[str, float], bool]:
    """Return each distinct value's position in order, as it is shown: the number it is, or else its place among the
    names, of which those that are numbers come first.
    """
    by_text = {shown(value): value for value in values}
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = {text: float(cast("float", value)) for text, value in by_text.items()}
        return dict(sorted(numbers.items(), key=lambda item: item[1])), True
    return {text: float(place) for place, text in enumerate(sorted(by_text, key=by_numbers))}, False


def _over(keys: Sequence[str]) -> str:
    """Return what the runs of one point differ in."""
    return f", mean ± standard deviation over {', '.join(keys)}" if keys else ""
