"""Figures of methods beside one another, a panel each: they share one legend, which stands outside of them.

They know names, colours and arrays alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_rm.analysis.calibration import Reliability
from lightning_rm.analysis.history import Curve
from lightning_rm.analysis.paired import Difference
from lightning_rm.analysis.plots.recipes import draw_mean
from lightning_rm.analysis.plots.style import GREY, STYLE, Key, step_axis

WIDTH = 4.4
"""Inches: on a page of two or three columns its letters are as large as those around it."""


def runs_of_methods(values: Mapping[Key, Sequence[float]], axis: str) -> Figure:
    """Return every run of each method as a dot, the mean as a bar across, a row a method.

    Args:
        values: of the runs, one at least of each method.
        axis: what they are.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _rows(list(values), axis)
        for place, (key, found) in enumerate(values.items()):
            if found:
                axes.plot(
                    found, [place] * len(found), "o", color=key.color, markersize=6, alpha=0.55, markeredgewidth=0
                )
                axes.plot([np.mean(found)] * 2, [place - 0.3, place + 0.3], color=key.color, linewidth=2.4)
    return figure


def difference_intervals(differences: Mapping[Key, Difference], axis: str) -> Figure:
    """Draw paired differences with their intervals, a row a method; hollow where the interval holds zero.

    Args:
        differences: from `paired_difference`; of a single pair, or of equal ones, there is no interval.
        axis: what they are.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _rows(list(differences), axis)
        axes.axvline(0, color="black", linewidth=1)
        for place, (key, found) in enumerate(differences.items()):
            told = found.verdict != "cannot be told"
            axes.plot(
                [found.low, found.high], [place, place], color=key.color, linewidth=2.4, alpha=1 if told else 0.55
            )
            axes.plot(
                [found.mean], [place], "o", color=key.color, markersize=7, markeredgewidth=1.6,
                markerfacecolor=key.color if told else "white",
            )  # fmt: skip
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.1 * (high - low)), max(high, 0.1 * (high - low)))
    return figure


def curves_of_methods(curves: Mapping[Key, Sequence[Curve]], axis: str, chance: float | None = None) -> Figure:
    """Return a metric over training: the mean over each method's runs, in a band of one standard deviation.

    Args:
        curves: method -> a curve a run; runs that were logged at other steps are read off between theirs, and those
            that have no step in common are drawn each by itself.
        axis: what the metric is.
        chance: drawn as a dotted line.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        axes = figure.subplots()
        for key, runs in curves.items():
            draw_mean(axes, key.name, runs, key.color, key.line)
        if chance is not None:
            axes.axhline(chance, color=GREY, linestyle=":", linewidth=1.2)
        axes.set_ylabel(axis)
        step_axis(axes)
    return figure


def reliability_of_methods(bins: Mapping[Key, Reliability]) -> Figure:
    """Draw accuracy by confidence of each method against the diagonal; the larger a dot, the more pairs it is of.

    Args:
        bins: from `reliability`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linestyle="--", linewidth=1.2)
        for key, found in bins.items():
            held = found.num_pairs > 0
            sizes = 8 + 110 * found.num_pairs[held] / found.num_pairs.sum()
            axes.plot(found.confidence[held], found.accuracy[held], color=key.color, linestyle=key.line, linewidth=1.5)
            axes.scatter(
                found.confidence[held], found.accuracy[held], s=sizes, color=key.color, alpha=0.75, linewidths=0
            )
        axes.set(xlim=(0.49, 1.01), xlabel="confidence, max(p, 1 − p)", ylabel="accuracy")
        low, high = axes.get_ylim()
        axes.set_ylim(max(min(low, 0.45), -0.02), min(max(high, 1.01), 1.02))
    return figure


def bars_of_models(scores: Mapping[Key, tuple[float, float, float]], axis: str, chance: float | None = None) -> Figure:
    """Return a score of each model as a bar with its interval, a row a model.

    Args:
        scores: value, lower and upper end; the ends may be NaN.
        axis: what the score is.
        chance: what random rewards get, drawn as a dotted line.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _rows(list(scores), axis)
        for place, (key, (value, low, high)) in enumerate(scores.items()):
            axes.barh(place, value, 0.6, color=key.color, alpha=0.75)
            axes.plot([low, high], [place, place], color="black", linewidth=1.6)
        if chance is not None:
            axes.axvline(chance, color=GREY, linestyle=":", linewidth=1.2)
    return figure


def _rows(keys: Sequence[Key], axis: str) -> tuple[Figure, Axes]:
    """Return a panel with a row a key, the first one on top, each under its name."""
    names = ["\n".join(textwrap.wrap(key.name, 22)[:3]) for key in keys]
    lines = sum(max(1, name.count("\n") + 0.6) for name in names)
    figure = Figure(figsize=(WIDTH, 0.8 + 0.36 * lines), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(keys)), names)
    axes.set_ylim(len(keys) - 0.45, -0.55)
    axes.set_xlabel(textwrap.fill(axis, 40))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    return figure, axes
