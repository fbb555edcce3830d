"""Figures of features in a plane, after figure 11 of arXiv 2401.06080. They know points and words alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_rm.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, figure_title, panel_grid


class Panel(NamedTuple):
    """One model's pairs: `points` (2, P, 2), the names of both axes, and the lines of text that stand beneath."""

    points: NDArray[np.float64]
    axes: tuple[str, str]
    lines: tuple[str, ...]


def feature_panels(
    panels: Mapping[str, Panel], title: str, kinds: tuple[str, str] = ("chosen", "rejected"), join: bool = False
) -> Figure:
    """Draw features of chosen and of rejected responses, a panel a model (arXiv 2401.06080, figure 11).

    A unit is as long across as up. Panels have scales of their own: features of two models share no space.

    Args:
        panels: name of the model to its points.
        title: stands above all panels.
        kinds: what the two kinds of points are called.
        join: whether a line joins the two points of each pair.
    """
    with mpl.rc_context(STYLE):
        figure, grid = panel_grid(len(panels), 4.4, 5.0, least=5.2)
        for axes, (name, panel) in zip(grid, panels.items(), strict=True):
            num_pairs = panel.points.shape[1]
            if join:
                axes.add_collection(LineCollection(list(panel.points.swapaxes(0, 1)), colors=GREY, lw=0.5, alpha=0.35))
            # Chosen and rejected take turns, so that neither kind hides the other.
            across, up = panel.points.swapaxes(0, 1).reshape(-1, 2).T
            size = float(np.clip(6000 / num_pairs, 6, 24))
            axes.scatter(across, up, s=size, c=[BLUE, ORANGE] * num_pairs, alpha=0.6, linewidths=0, zorder=2)
            axes.set_title(name)
            axes.set_box_aspect(1)
            axes.set_aspect("equal", adjustable="datalim")
            axes.margins(0.06)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(nbins=5))
            axes.set(xlabel="\n".join((panel.axes[0], "", *panel.lines)), ylabel=panel.axes[1])
        handles = [
            Line2D([], [], color=color, marker="o", linestyle="", label=kind)
            for kind, color in zip(kinds, (BLUE, ORANGE), strict=True)
        ]
        figure_title(figure, title)
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
