"""Figures of models trained by strength, after figures 4 to 8, 21 and 22 of arXiv 2401.06080. They know arrays alone.

Accuracies of several seeds come as their mean and spread; the band or bar is one spread up and one down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_rm.analysis.history import Curve
from lightning_rm.analysis.plots.style import (
    GREY,
    STYLE,
    Series,
    draw_series,
    figure_title,
    legend_below,
    line_of,
    marked_line,
    panel_grid,
    share_axis,
    step_axis,
)
from lightning_rm.analysis.words import key_words, metric_words, titled

ACCURACY = "test/accuracy"
"""What is drawn where nothing else is asked for."""


def decile_accuracy(
    deciles: Mapping[str, Series],
    num_pairs: int | None,
    reference: float | None = None,
    reference_name: str = "all pairs",
    metric: str = ACCURACY,
) -> Figure:
    """Test accuracy of models that were each trained on one tenth of the pairs (arXiv 2401.06080, figures 4 and 5).

    Args:
        deciles: label of a series, such as `as labelled` and `flipped`, to decile (0 the weakest, up to 9), mean
            accuracy and spread.
        num_pairs: pairs of the test set; None for a metric that is not of pairs.
        reference: accuracy to compare with, drawn as a line.
        reference_name: its label.
        metric: key of what is drawn, where it is not accuracy.
    """
    with mpl.rc_context(STYLE):
        apart = {label: _with_gaps(series) for label, series in deciles.items()}
        figure, axes = _accuracy_figure(apart, "Training on one tenth", num_pairs, metric)
        if reference is not None:
            axes.axhline(reference, color="black", linestyle="-.", linewidth=1.2, label=reference_name)
        axes.set_xticks(range(10), [f"{10 * tenth}–{10 * tenth + 10}" for tenth in range(10)])
        axes.set_xlabel("training pairs by strength, weakest first (%)")
        legend_below(figure, 4, first=list(deciles))
    return figure


def prefix_accuracy(prefixes: Mapping[str, Series], num_pairs: int | None, metric: str = ACCURACY) -> Figure:
    """Test accuracy by how much of the data is trained on (arXiv 2401.06080, figures 21 and 22).

    Args:
        prefixes: label of a series, such as `from the weak end` and `from the strong end`, to share of the training
            pairs in [0, 1], mean accuracy and spread.
        num_pairs: pairs of the test set; None for a metric that is not of pairs.
        metric: key of what is drawn, where it is not accuracy.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _accuracy_figure(prefixes, "Training on a part", num_pairs, metric)
        share_axis(axes, "share of the training pairs")
        legend_below(figure, 4, first=list(prefixes))
    return figure


def recipe_curves(
    metrics: Mapping[str, Mapping[str, Sequence[Curve]]], num_pairs: int | str, chance: float | None = None
) -> Figure:
    """Draw metrics over training, a line a recipe: the mean of its seeds in a band (arXiv 2401.06080, figures 6 to 8).

    The band is one sample standard deviation up and one down; a single seed has none. Seeds that were logged at other
    steps are interpolated linearly at the steps of all, as far as every seed goes; those that have no step in common
    are drawn each by itself.

    Args:
        metrics: key of a metric to recipe to curves, one a seed. A recipe has the same colour in every panel.
        num_pairs: pairs that were trained on, in words where recipes differ in them.
        chance: value drawn as a line in each panel.

    Raises:
        ValueError: if there is no metric.
    """
    recipes = list(dict.fromkeys(recipe for curves in metrics.values() for recipe in curves))
    if not recipes:
        raise ValueError("no metric has a recipe: there is nothing to draw")
    with mpl.rc_context(STYLE):
        figure, panels = panel_grid(len(metrics), 4.4, 3.6)
        for axes, (key, curves) in zip(panels, metrics.items(), strict=True):
            for recipe, seeds in curves.items():
                draw_mean(axes, recipe, seeds, *line_of(recipes.index(recipe)))
            if chance is not None:
                axes.axhline(chance, color=GREY, linestyle=":", linewidth=1.2)
            axes.set_title(titled(key_words(key)))
            step_axis(axes)
        figure_title(
            figure,
            f"{num_pairs if isinstance(num_pairs, str) else f'{num_pairs:,}'} training pairs, {_num_seeds(metrics)}",
        )
        legend_below(figure, 2 + min(3, len(metrics)))
    return figure


def draw_mean(axes: Axes, name: str, curves: Sequence[Curve], color: str, line: str) -> None:
    """Draw the mean of curves in a band of one standard deviation, each point marked where there are few of them.

    Curves that have no step in common have no mean: each is drawn by itself.
    """
    if max(curve.steps[0] for curve in curves) > min(curve.steps[-1] for curve in curves):
        for curve in curves:
            draw_mean(axes, name, [curve], color, line)
        return
    steps, mean, spread = _over_seeds(curves)
    marker = "o" if len(steps) <= 20 else ""
    axes.plot(steps, mean, color=color, linestyle=line, marker=marker, markersize=4, label=name)
    if len(curves) > 1:
        axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)


def _accuracy_figure(
    series: Mapping[str, Series], title: str, num_pairs: int | None, metric: str
) -> tuple[Figure, Axes]:
    """Accuracies, or another metric, with their spread and, of accuracies, the line of chance."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for index, (label, one) in enumerate(series.items()):
        draw_series(axes, one, marked_line(index), label)
    name = metric_words(metric.rpartition("/")[2])
    if metric.endswith("accuracy"):
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2, label="chance")
    of_pairs = "" if num_pairs is None else f" over {num_pairs:,} {metric.partition('/')[0]} pairs"
    axes.set(title=f"{title}, {name}{of_pairs}", ylabel=key_words(metric))
    axes.margins(y=0.08)
    return figure, axes


def _with_gaps(series: Series) -> Series:
    """Return the same with nothing (NaN) at deciles that were not run, so that no line crosses them."""
    positions, means, spreads = (np.asarray(values, np.float64) for values in series)
    every = np.arange(positions.min(), positions.max() + 1)
    place = np.searchsorted(every, positions)
    found = np.full((2, len(every)), np.nan)
    found[:, place] = means, spreads
    return every, found[0], found[1]


def _over_seeds(seeds: Sequence[Curve]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps, mean and spread over seeds that have steps in common, at the steps of all seeds that no seed lacks."""
    steps = np.unique(np.concatenate([seed.steps for seed in seeds]))
    steps = steps[(steps >= max(seed.steps[0] for seed in seeds)) & (steps <= min(seed.steps[-1] for seed in seeds))]
    values = np.stack([np.interp(steps, seed.steps, seed.values) for seed in seeds])
    spread = values.std(0, ddof=1) if len(seeds) > 1 else np.zeros(len(steps))
    return steps, values.mean(0), spread


def _num_seeds(metrics: Mapping[str, Mapping[str, Sequence[Curve]]]) -> str:
    """Say how many seeds a line has: `3 seeds each`, `1 to 3 seeds each`."""
    counts = sorted({len(seeds) for curves in metrics.values() for seeds in curves.values()})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds each"
    return f"{counts[0]} seeds each" if counts[0] > 1 else "one seed each"
