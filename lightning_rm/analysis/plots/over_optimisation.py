"""The figure of over-optimisation: gold and proxy of the best of n against its distance. It knows arrays alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_rm.analysis.plots.style import LINES, STYLE, figure_title, legend_below, panel_grid

Values = NDArray[np.float64]


class GoldAndProxy(NamedTuple):
    """One model's curve: (J,) each, as `rlhf.curves.Curve` has them."""

    n: NDArray[np.int64]
    kl: Values
    gold: Values
    low: Values
    high: Values
    proxy: Values


def over_optimisation(models: Mapping[str, GoldAndProxy]) -> Figure:
    """Draw gold beside proxy, each from its value at n = 1, against the divergence from the policy; n stands above.

    Args:
        models: name -> curve.
    """
    with mpl.rc_context(STYLE):
        figure, (left, right) = panel_grid(2, 4.6, 4.0, below=0.5)
        for (name, curve), (color, line) in zip(models.items(), LINES * len(models), strict=False):
            start = curve.gold[0]
            left.plot(curve.kl, curve.gold - start, line, color=color, marker="o", markersize=4, label=name)
            left.fill_between(curve.kl, curve.low - start, curve.high - start, color=color, alpha=0.15, linewidth=0)
            right.plot(curve.kl, curve.proxy - curve.proxy[0], line, color=color, marker="o", markersize=4)
        left.set(title="what it is worth", ylabel="gold reward, from n = 1")
        right.set(title="what the model says", ylabel="its own reward, from n = 1")
        for axes in (left, right):
            axes.set_xlabel("KL divergence from the policy (nats)")
            axes.axhline(0, color="black", linewidth=0.8)
            _n_above(axes, next(iter(models.values())))
        figure_title(figure, "The best of n by a reward model")
        legend_below(figure, 3)
    return figure


def _n_above(axes: Axes, curve: GoldAndProxy) -> None:
    """Mark every n above the panel, as far as they leave each other room."""
    above = axes.secondary_xaxis("top")
    room = 0.07 * (curve.kl[-1] - curve.kl[0])
    shown: list[int] = []
    for place, distance in enumerate(curve.kl.tolist()):
        if not shown or distance - curve.kl[shown[-1]] >= room:
            shown.append(place)
    above.set_xticks(curve.kl[shown], [str(n) for n in curve.n[shown]])
    above.set_xlabel("n")
    above.tick_params(labelsize=8)
