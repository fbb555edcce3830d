"""Figures of models trained by strength, after figures 4 to 8, 21 and 22 of arXiv 2401.06080. They know arrays alone.

Accuracies of several seeds come as their mean and spread; the band or bar is one spread up and one down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_rm.analysis.history import Curve
from lightning_rm.analysis.plots.style import GREY, LINES, MARKERS, STYLE, Series, share_axis


def decile_accuracy(
    deciles: Mapping[str, Series], num_pairs: int, reference: float | None = None, reference_name: str = "all pairs"
) -> Figure:
    """Test accuracy of models that were each trained on one tenth of the pairs (arXiv 2401.06080, figures 4 and 5).

    Args:
        deciles: label of a series, such as `as labelled` and `flipped`, to decile (0 the weakest, up to 9), mean
            accuracy and spread.
        num_pairs: pairs of the test set.
        reference: accuracy to compare with, drawn as a line.
        reference_name: its label.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _accuracy_figure(deciles, f"Training on one tenth, accuracy over {num_pairs:,} test pairs")
        if reference is not None:
            axes.axhline(reference, color="black", linestyle="-.", linewidth=1.2, label=reference_name)
        axes.set_xticks(range(10), [f"{10 * tenth}–{10 * tenth + 10}" for tenth in range(10)])
        axes.set_xlabel("training pairs by strength, weakest first (%)")
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def prefix_accuracy(prefixes: Mapping[str, Series], num_pairs: int) -> Figure:
    """Test accuracy by how much of the data is trained on (arXiv 2401.06080, figures 21 and 22).

    Args:
        prefixes: label of a series, such as `from the weak end` and `from the strong end`, to share of the training
            pairs in [0, 1], mean accuracy and spread.
        num_pairs: pairs of the test set.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _accuracy_figure(prefixes, f"Training on a part, accuracy over {num_pairs:,} test pairs")
        share_axis(axes, "share of the training pairs")
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def recipe_curves(
    metrics: Mapping[str, Mapping[str, Sequence[Curve]]], num_pairs: int, chance: float | None = None
) -> Figure:
    """Metrics over training, a line a recipe: the mean of its seeds in a band (arXiv 2401.06080, figures 6 to 8).

    The band is one sample standard deviation up and one down; a single seed has none. Seeds that were logged at other
    steps are interpolated linearly at the steps of all, as far as every seed goes.

    Args:
        metrics: key of a metric to recipe to curves, one a seed. A recipe has the same colour in every panel.
        num_pairs: pairs that were trained on.
        chance: value drawn as a line in each panel.

    Raises:
        ValueError: if there is no metric, or the seeds of a recipe have no step in common.
    """
    recipes = list(dict.fromkeys(recipe for curves in metrics.values() for recipe in curves))
    if not recipes:
        raise ValueError("no metric has a recipe: there is nothing to draw")
    num_columns = min(3, len(metrics))
    num_rows = -(-len(metrics) // num_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.4, 4.4 * num_columns), 3.6 * num_rows + 0.6), layout="constrained")
        panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, (key, curves) in zip(panels, metrics.items(), strict=False):
            for recipe, seeds in curves.items():
                steps, mean, spread = _over_seeds(recipe, seeds)
                color, line = LINES[recipes.index(recipe) % len(LINES)]
                axes.plot(steps, mean, color=color, linestyle=line, label=recipe)
                axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
            if chance is not None:
                axes.axhline(chance, color=GREY, linestyle=":", linewidth=1.2)
            axes.set(title=key, xlabel="optimizer step")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
        for axes in panels[len(metrics) :]:
            axes.remove()
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.suptitle(f"{num_pairs:,} training pairs, {_num_seeds(metrics)}", x=0.01, ha="left", fontsize=11)
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=min(2 + num_columns, len(handles))
        )
    return figure


def _accuracy_figure(series: Mapping[str, Series], title: str) -> tuple[Figure, Axes]:
    """Accuracies with their spread and the line of chance."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for index, (label, (positions, accuracy, spread)) in enumerate(series.items()):
        color, line = LINES[index % len(LINES)]
        marker = MARKERS[index % len(MARKERS)]
        axes.errorbar(
            positions,
            accuracy,
            spread,
            color=color,
            linestyle=line,
            marker=marker,
            markersize=5,
            elinewidth=1.2,
            capsize=3,
            label=label,
        )
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2, label="chance")
    axes.set(title=title, ylabel="test accuracy")
    axes.margins(y=0.08)
    return figure, axes


def _over_seeds(
    recipe: str, seeds: Sequence[Curve]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps, mean and spread over seeds, at the steps of all seeds that no seed lacks."""
    steps = np.unique(np.concatenate([seed.steps for seed in seeds]))
    steps = steps[(steps >= max(seed.steps[0] for seed in seeds)) & (steps <= min(seed.steps[-1] for seed in seeds))]
    if not len(steps):
        raise ValueError(f"{recipe}: its {len(seeds)} seeds have no step in common")
    values = np.stack([np.interp(steps, seed.steps, seed.values) for seed in seeds])
    spread = values.std(0, ddof=1) if len(seeds) > 1 else np.zeros(len(steps))
    return steps, values.mean(0), spread


def _num_seeds(metrics: Mapping[str, Mapping[str, Sequence[Curve]]]) -> str:
    """How many seeds a line has: `3 seeds each`, `1 to 3 seeds each`."""
    counts = sorted({len(seeds) for curves in metrics.values() for seeds in curves.values()})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds each"
    return f"{counts[0]} seeds each" if counts[0] > 1 else "one seed each"
