"""Figures of results against one setting, a panel a metric and a line a series. They know arrays and words alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lightning_rm.analysis.plots.style import (
    GREY,
    STYLE,
    Series,
    draw_series,
    figure_title,
    legend_below,
    marked_line,
    panel_grid,
)
from lightning_rm.analysis.words import key_words, titled

LOG_FACTOR = 20
"""Settings that span more than this factor are drawn on a logarithmic axis."""


class Band(NamedTuple):
    """Runs to compare with: the mean of a metric, and its spread over them."""

    mean: float
    spread: float


def metric_panels(
    metrics: Mapping[str, Mapping[str, Series]],
    x: str,
    title: str,
    *,
    categories: Sequence[str] | None = None,
    series: str | None = None,
    bands: Mapping[str, Band] | None = None,
    band_name: str = "reference",
) -> Figure:
    """Draw metrics against a setting: means over runs, the bars one spread up and one down.

    The axis is logarithmic where the settings span more than a factor of `LOG_FACTOR`, and linear below the least
    positive one where 0 is among them.

    Args:
        metrics: key of a metric to label of a series to positions, means and spreads. A series looks the same in every
            panel.
        x: what the positions are.
        title: stands above all panels.
        categories: names of the positions 0, 1, ..., for a setting that is not a number.
        series: what tells the series apart; None for one series, which has no legend.
        bands: metric to the runs to compare with, drawn as a horizontal band.
        band_name: what they are called.
    """
    names = list(dict.fromkeys(name for lines in metrics.values() for name in lines))
    bands = bands or {}
    with mpl.rc_context(STYLE):
        figure, panels = panel_grid(len(metrics), 4.4, 3.8, below=0.7)
        for axes, (key, lines) in zip(panels, metrics.items(), strict=True):
            for name, series_of in lines.items():
                look = marked_line(names.index(name))
                if categories is not None:
                    look["linestyle"] = ""  # nothing lies between two names
                draw_series(axes, series_of, look, name)
            if key in bands:
                mean, spread = bands[key]
                if not np.isnan(spread):
                    axes.axhspan(mean - spread, mean + spread, color=GREY, alpha=0.25, linewidth=0, zorder=0)
                axes.axhline(mean, color="black", linestyle="-.", linewidth=1.2, label=band_name)
            axes.set(title=titled(key_words(key)), xlabel=x)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
            axes.margins(y=0.1)
            _scale(axes, sorted({float(place) for line in lines.values() for place in np.asarray(line[0])}), categories)
        figure_title(figure, title)
        if len(names) > 1 or bands:
            legend_below(figure, 2 + min(3, len(metrics)), title=series, first=names, last=band_name)
    return figure


def _scale(axes: Axes, values: Sequence[float], categories: Sequence[str] | None) -> None:
    """Set the scale and the ticks of the horizontal axis: names, or numbers that leave each other room."""
    if categories is not None:
        slant: Any = {"rotation": 20, "ha": "right"} if len(categories) > 4 else {}
        axes.set_xticks(range(len(categories)), categories, **slant)
        axes.set_xlim(-0.5, len(categories) - 0.5)
        return
    positive = [value for value in values if value > 0]
    if not positive or values[0] < 0 or positive[-1] <= LOG_FACTOR * positive[0]:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        return
    if values[0] == 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    else:
        axes.set_xscale("log")
    # Where along the axis each value stands; a tick within a seventh of the axis of the last one is left out.
    transform: Any = axes.xaxis.get_transform()
    places = cast("list[float]", transform.transform(np.asarray(values)).tolist())
    ticks: list[int] = []
    for index, place in enumerate(places):
        if not ticks or place - places[ticks[-1]] >= (1 / 7) * (places[-1] - places[0]):
            ticks.append(index)
    axes.set_xticks([values[index] for index in ticks], [f"{values[index]:g}" for index in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
