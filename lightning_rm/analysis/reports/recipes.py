"""Deciles, prefixes and recipes of strength over runs: the figures and tables of arXiv 2401.06080, section 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.analysis.history import Curve, read_history, smoothed
from lightning_rm.analysis.plots.recipes import decile_accuracy, prefix_accuracy, recipe_curves
from lightning_rm.analysis.plots.style import Series, save_figure
from lightning_rm.analysis.runs import Run, mean_and_spread, spread
from lightning_rm.analysis.table_files import write_table

CURVES = ("train/loss", "train/accuracy", "val/nll", "val/accuracy", "val/clean_accuracy")
"""What is drawn of recipes, as far as it was logged."""


def decile_report(runs: Sequence[Run], metric: str, reference: float | None, out: Path) -> list[Path]:
    """Accuracy of models trained on each decile alone, as labelled and flipped (arXiv 2401.06080, Figs 4 and 5)."""

    def series(options: Mapping[str, Mapping[str, Any]]) -> str:
        return "flipped" if options.get("flip", {}).get("below_quantile") else "as labelled"

    found = _gathered(runs, metric, "decile", "number", series)
    figure = decile_accuracy({name: _series(values) for name, values in found.items()}, _pairs(runs, metric), reference)
    rows = _rows(found, "decile")
    return [*save_figure(figure, out / "deciles"), *write_table(rows, out / "deciles", f"{metric} by decile")]


def prefix_report(runs: Sequence[Run], metric: str, out: Path) -> list[Path]:
    """Accuracy by share of the data, from the weak and the strong end (arXiv 2401.06080, Figs 21 and 22)."""
    found = _gathered(runs, metric, "prefix", "share", lambda options: f"from the {options['prefix']['end']} end")
    figure = prefix_accuracy({name: _series(values) for name, values in found.items()}, _pairs(runs, metric))
    rows = _rows(found, "share")
    return [
        *save_figure(figure, out / "prefixes"),
        *write_table(rows, out / "prefixes", f"{metric} by share of the data"),
    ]


def _gathered(
    runs: Sequence[Run],
    metric: str,
    treatment: str,
    position: str,
    series: Callable[[Mapping[str, Mapping[str, Any]]], str],
) -> dict[str, dict[float, list[float]]]:
    """Series -> position -> the metric of every seed, the position being an option of the treatment.

    Raises:
        ValueError: if a run was trained without it.
    """
    found: dict[str, dict[float, list[float]]] = {}
    for run in runs:
        if treatment not in run.treatments:
            raise ValueError(
                f"{run.folder} was not trained on a {treatment}; its treatments are {sorted(run.treatments)}"
            )
        by_position = found.setdefault(series(run.treatments), {})
        by_position.setdefault(float(run.treatments[treatment][position]), []).append(run.value(metric))
    return found


def recipe_report(runs: Sequence[Run], metrics: Sequence[str], out: Path) -> list[Path]:
    """Recipes over seeds: their curves (arXiv 2401.06080, Figs 6 to 8), and a table of results, mean and spread.

    The table also has, of every validation curve of `clean_accuracy` or else `accuracy`, its best point and its last:
    a recipe that memorises wrong labels falls between the two.
    """
    recipes: dict[str, list[Run]] = {}
    for run in runs:
        recipes.setdefault(run.name, []).append(run)
    curves: dict[str, dict[str, list[Curve]]] = {}
    rows: list[dict[str, object]] = []
    for name, same in recipes.items():
        histories = [read_history(run.folder / "csv" / "metrics.csv") for run in same]
        for key in CURVES:
            if all(key in history for history in histories):
                same_curves = [_within_training(history[key], history) for history in histories]
                curves.setdefault(key, {})[name] = same_curves
        row: dict[str, object] = {"recipe": name, "seeds": len(same)}
        for metric in metrics:
            row |= mean_and_spread(metric, [run.value(metric) for run in same])
        key = next(
            (key for key in ("val/clean_accuracy", "val/accuracy") if key in curves and name in curves[key]), None
        )
        if key is not None:
            row |= mean_and_spread(f"{key}, best", [float(curve.values.max()) for curve in curves[key][name]])
            row |= mean_and_spread(f"{key}, last", [float(curve.values[-1]) for curve in curves[key][name]])
        rows.append(row)
    written = write_table(rows, out / "recipes", "Recipes: mean over seeds and its standard deviation")
    if curves:
        num_pairs = int(runs[0].results()["train"]["num_pairs"])
        drawn = {key: {name: list(map(smoothed, same)) for name, same in by.items()} for key, by in curves.items()}
        written += save_figure(recipe_curves(drawn, num_pairs), out / "recipes")
    return written


def _within_training(curve: Curve, history: Mapping[str, Curve]) -> Curve:
    """A curve without what was logged after training, the last evaluation of the best weights; alone, that stays."""
    ends = [history[key].steps[-1] for key in ("train/loss", "train_epoch/accuracy") if key in history]
    # The evaluation after training is logged at the last step again: of equal steps the first counts.
    first = np.concatenate([[True], np.diff(curve.steps) > 0]) & (curve.steps <= max(ends, default=np.inf))
    return Curve(curve.steps[first], curve.values[first]) if first.any() else curve


def _series(values: Mapping[float, Sequence[float]]) -> Series:
    positions = sorted(values)
    means = [float(np.mean(values[position])) for position in positions]
    return positions, means, [spread(values[position]) for position in positions]


def _rows(found: Mapping[str, Mapping[float, Sequence[float]]], position: str) -> list[dict[str, object]]:
    return [
        {position: place, "trained": name, "seeds": len(values)} | mean_and_spread("accuracy", values)
        for name, series in found.items()
        for place, values in sorted(series.items())
    ]


def _pairs(runs: Sequence[Run], metric: str) -> int:
    return int(runs[0].value(f"{metric.rpartition('/')[0]}/num_pairs"))
