"""Many runs side by side: deciles and prefixes of strength, recipes over seeds. It reads what runs wrote.

A run here is its folder and what it was told, as plain values; who read its configuration is not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.analysis.plots import Curve, read_history, save_figure, smoothed
from lightning_rm.analysis.recipe_plots import Series, decile_accuracy, prefix_accuracy, recipe_curves
from lightning_rm.analysis.strength_tables import write_table

CURVES = ("train/loss", "train/accuracy", "val/nll", "val/accuracy", "val/clean_accuracy")
"""What is drawn of recipes, as far as it was logged."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Args:
        folder: where it lies.
        name: its recipe's name.
        seed: its seed.
        treatments: the options of its treatments by name.
        settings: every value of its configuration by dotted key, such as `module.beta`.
    """

    folder: Path
    name: str
    seed: int
    treatments: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, object] = field(default_factory=dict[str, object])

    def results(self) -> dict[str, dict[str, float]]:
        """`results.json`: data set -> metric -> value.

        Raises:
            ValueError: if the run has not come to its end.
        """
        path = self.folder / "results.json"
        if not path.is_file():
            raise ValueError(f"{self.folder} has no results.json: the run has not ended; wait for it, or leave it out")
        return json.loads(path.read_text())

    def value(self, metric: str) -> float:
        """One result by `SET/METRIC`: `test/accuracy`, `test/ood/accuracy` or, in short, `ood/accuracy`.

        Raises:
            ValueError: if the run has no such result.
        """
        values = {f"{name}/{key}": value for name, metrics in self.results().items() for key, value in metrics.items()}
        for key in (metric, f"test/{metric}"):
            if key in values:
                return values[key]
        raise ValueError(f"{self.folder} has no result {metric!r}; it has {nearest(metric, values)} and others")

    def setting(self, key: str) -> object:
        """One value of its configuration by dotted key.

        Raises:
            ValueError: if the configuration has no such value.
        """
        if key not in self.settings:
            raise ValueError(
                f"{self.folder}: its config.yaml has no value {key!r}; it has {nearest(key, self.settings)} and others"
            )
        return self.settings[key]


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


def nearest(key: str, known: Iterable[str], num: int = 4) -> str:
    """What a user may have meant: those that end alike first, then those spelled alike."""
    names = sorted(known)
    same_end = [name for name in names if re.split("[./]", name)[-1] == re.split("[./]", key)[-1]]
    found = [*same_end, *get_close_matches(key, names, n=num, cutoff=0), *names]
    return ", ".join(list(dict.fromkeys(found))[:num])


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


def mean_and_spread(name: str, values: Sequence[float]) -> dict[str, object]:
    """The mean under the name, and the spread under `<name> sd`: cells of a table's row."""
    return {name: float(np.mean(values)), f"{name} sd": spread(values)}


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; NaN of one value, whose spread nobody knows."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _pairs(runs: Sequence[Run], metric: str) -> int:
    return int(runs[0].value(f"{metric.rpartition('/')[0]}/num_pairs"))
