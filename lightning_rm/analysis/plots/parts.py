"""Figure of the parts of a method over training, whatever it logs: a small panel each. It knows curves alone."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_rm.analysis.history import Curve, History, smoothed
from lightning_rm.analysis.plots.style import BLUE, STYLE, figure_title, panel_grid, step_axis
from lightning_rm.analysis.words import metric_words, titled
from lightning_rm.metrics.pairs import metric_names


def parts(history: History) -> dict[str, Curve]:
    """Return the curves of `train/<part>` that are neither the loss nor a metric of pairs: what a method says of
    itself.

    A part that is the whole loss, as `ranking` of the baseline, is left out.
    """
    loss = history["train/loss"].values if "train/loss" in history else np.array([])
    found = {key.removeprefix("train/"): curve for key, curve in history.items() if key.startswith("train/")}
    return {
        name: curve
        for name, curve in found.items()
        if "/" not in name and name not in metric_names() | {"loss"} and not np.array_equal(curve.values, loss)
    }


def part_curves(history: History) -> Figure:
    """Return every part of a method over the steps of the optimizer, such as `alignment` and `difference_loss`.

    Curves of many points are drawn faint, with a running mean over them.

    Args:
        history: from `read_history`.

    Raises:
        ValueError: if no part was logged.
    """
    curves = parts(history)
    if not curves:
        raise ValueError("no part of a method was logged: there is nothing to draw")
    with mpl.rc_context(STYLE):
        figure, panels = panel_grid(len(curves), 3.6, 2.7, least=5.2, below=0.2)
        for axes, (name, curve) in zip(panels, curves.items(), strict=True):
            smooth = smoothed(curve)
            if len(smooth.steps) < len(curve.steps):
                axes.plot(curve.steps, curve.values, color=BLUE, linewidth=0.8, alpha=0.3)
            axes.plot(smooth.steps, smooth.values, color=BLUE, marker="o" if len(smooth.steps) <= 20 else "", ms=4)
            axes.set_title(titled(metric_words(name)))
            step_axis(axes)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        figure_title(figure, "What the method measures of itself in training")
    return figure
