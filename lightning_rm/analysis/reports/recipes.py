"""Deciles, prefixes and recipes of strength over runs: the figures and tables of arXiv 2401.06080, section 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_rm.analysis.history import Curve, read_history, smoothed, within_training
from lightning_rm.analysis.plots.recipes import decile_accuracy, prefix_accuracy, recipe_curves
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.analysis.runs import Run, by_name, mean_and_spread, over_runs
from lightning_rm.analysis.table_files import write_table

CURVES = ("train/loss", "train/accuracy", "val/nll", "val/accuracy", "val/clean_accuracy")
"""What is drawn of recipes, as far as it was logged."""


def decile_report(runs: Sequence[Run], metric: str, reference: float | None, out: Path) -> list[Path]:
    """Report accuracy of models trained on each decile alone, as labelled and flipped (arXiv 2401.06080, Figs 4 and
    5).
    """
    rows = _rows(_deciles(runs, metric), "decile", metric)
    return [
        *save_figure(decile_figure(runs, metric, reference), out / "deciles"),
        *write_table(rows, out / "deciles", f"{metric} by decile"),
    ]


def decile_figure(runs: Sequence[Run], metric: str, reference: float | None = None) -> Figure:
    """Return the metric by decile; runs that were not trained on one are an error."""
    series = {name: over_runs(values) for name, values in _deciles(runs, metric).items()}
    return decile_accuracy(series, _pairs(runs, metric), reference, metric=runs[0].full_key(metric))


def prefix_report(runs: Sequence[Run], metric: str, out: Path) -> list[Path]:
    """Report accuracy by share of the data, from the weak and the strong end (arXiv 2401.06080, Figs 21 and 22)."""
    rows = _rows(_prefixes(runs, metric), "share", metric)
    return [
        *save_figure(prefix_figure(runs, metric), out / "prefixes"),
        *write_table(rows, out / "prefixes", f"{metric} by share of the data"),
    ]


def prefix_figure(runs: Sequence[Run], metric: str) -> Figure:
    """Return the metric by share; runs that were not trained on one are an error."""
    series = {name: over_runs(values) for name, values in _prefixes(runs, metric).items()}
    return prefix_accuracy(series, _pairs(runs, metric), metric=runs[0].full_key(metric))


Found = dict[str, dict[float, list[float]]]
"""Series -> position -> the metric of every seed."""


def _deciles(runs: Sequence[Run], metric: str) -> Found:
    def series(options: Mapping[str, Mapping[str, Any]]) -> str:
        return "flipped" if options.get("flip", {}).get("below_quantile") else "as labelled"

    return _gathered(runs, metric, "decile", "number", series)


def _prefixes(runs: Sequence[Run], metric: str) -> Found:
    return _gathered(runs, metric, "prefix", "share", lambda options: f"from the {options['prefix']['end']} end")


def _gathered(
    runs: Sequence[Run],
    metric: str,
    treatment: str,
    position: str,
    series: Callable[[Mapping[str, Mapping[str, Any]]], str],
) -> Found:
    """Return the metric of every seed, by a position that is an option of the treatment; runs of two names, or
    of two modules, are two series.

    Raises:
        ValueError: if a run was trained without it.
    """
    for run in runs:
        if position not in run.treatments.get(treatment, {}):
            raise ValueError(
                f"{run.folder} was not trained on a {treatment}; its treatments are {sorted(run.treatments)}"
            )
    called = {run.folder: name for name, same in by_name(runs).items() for run in same}
    names = {
        label: {called[run.folder] for run in runs if series(run.treatments) == label}
        for label in dict.fromkeys(series(run.treatments) for run in runs)
    }
    found: Found = {}
    for run in runs:
        label = series(run.treatments)
        by_position = found.setdefault(f"{called[run.folder]}, {label}" if len(names[label]) > 1 else label, {})
        by_position.setdefault(float(run.treatments[treatment][position]), []).append(run.value(metric))
    return found


def recipe_report(runs: Sequence[Run], metrics: Sequence[str], out: Path) -> list[Path]:
    """Report recipes over seeds: their curves (arXiv 2401.06080, Figs 6 to 8), and a table of results, mean and spread.

    Runs without `csv/metrics.csv` (logger=none) are in the table and not in the curves, which the table counts. Its
    column `pairs` says on how many each recipe was trained: those of recipes that were trained on fewer may differ by
    that alone. It also has, of every validation curve of `clean_accuracy` or else `accuracy`, its best point and its
    last: a recipe that memorises wrong labels falls between the two.
    """
    metrics = [runs[0].full_key(metric) for metric in metrics]
    recipes = by_name(runs)
    curves: dict[str, dict[str, list[Curve]]] = {}
    rows: list[dict[str, object]] = []
    for name, same in recipes.items():
        logs = [run.folder / "csv" / "metrics.csv" for run in same]
        histories = [read_history(log) for log in logs if log.is_file()]
        for key in CURVES:
            if same_curves := [within_training(history[key], history) for history in histories if key in history]:
                curves.setdefault(key, {})[name] = same_curves
        row: dict[str, object] = {"recipe": name, "seeds": len(same), "pairs": _num_pairs(same)}
        for metric in metrics:
            row |= mean_and_spread(metric, [run.value(metric) for run in same])
        key = next(
            (key for key in ("val/clean_accuracy", "val/accuracy") if key in curves and name in curves[key]), None
        )
        if key is not None:
            row |= mean_and_spread(f"{key}, best", [float(curve.values.max()) for curve in curves[key][name]])
            row |= mean_and_spread(f"{key}, last", [float(curve.values[-1]) for curve in curves[key][name]])
        row["curves"] = len(histories) if key is None else len(curves[key][name])
        rows.append(row)
    written = write_table(rows, out / "recipes", "Recipes: mean over seeds and its standard deviation")
    if curves:
        drawn = {key: {name: list(map(smoothed, same)) for name, same in by.items()} for key, by in curves.items()}
        written += save_figure(recipe_curves(drawn, _num_pairs(runs)), out / "recipes")
    return written


def _num_pairs(runs: Sequence[Run]) -> str:
    """Return the pairs of an epoch of training: `12,000`, `264 to 300` where runs differ, `none` where nothing was
    trained.
    """
    found = sorted({int(run.results().get("train", {}).get("num_pairs", 0)) for run in runs})
    shown = [f"{found[0]:,}", f"{found[-1]:,}"]
    return "none" if found == [0] else " to ".join(dict.fromkeys(shown))


def _rows(found: Mapping[str, Mapping[float, Sequence[float]]], position: str, metric: str) -> list[dict[str, object]]:
    name_of = metric.rpartition("/")[2]
    return [
        {position: int(place) if position == "decile" else place, "trained": name, "seeds": len(values)}
        | mean_and_spread(name_of, values)
        for name, series in found.items()
        for place, values in sorted(series.items())
    ]


def _pairs(runs: Sequence[Run], metric: str) -> int | None:
    """Return the pairs that a metric is of; None of one that is not of pairs."""
    data_set = runs[0].full_key(metric).rpartition("/")[0]
    return int(runs[0].value(key)) if runs[0].has(key := f"{data_set}/num_pairs") else None
