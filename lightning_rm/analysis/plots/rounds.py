"""The figure of rounds: worth, reward, distance and variety of each round's policy. It knows numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_rm.analysis.plots.style import BLUE, ORANGE, STYLE, figure_title, panel_grid

Series = Mapping[str, Sequence[float | None]]


def rounds_figure(series: Series) -> Figure:
    """Draw six panels over the rounds: worth, reward, KL, length, variety and perplexity.

    Args:
        series: measure -> its value in every round, as `rlhf.round_table.RoundTable.series` gives them; None or NaN
            where nobody knows it.
    """
    compares = all(value is None for value in series["gold"])
    panels = (
        ("worth", "share of wins, ties half", None) if compares else ("gold", "gold", "gold_std_err"),
        ("reward", "its own reward, from the start policy's", "reward_std"),
        ("kl", "KL from the start (nats)", "kl_std_err"),
        ("length", "tokens of a response", None),
        ("self_bleu", "self-BLEU, and distinct-2 (dashed)", None),
        ("perplexity", "perplexity under the start policy", None),
    )
    with mpl.rc_context(STYLE):
        figure, axes = panel_grid(6, 3.4, 2.7)
        for panel, (name, label, spread) in zip(axes, panels, strict=True):
            _line(panel, series[name], BLUE, "-", series.get(spread or "", ()))
            if name == "self_bleu":
                _line(panel, series["distinct_2"], ORANGE, "--")
            panel.set(title=label, xlabel="round")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure_title(figure, "Rounds of RLHF")
    return figure


def _line(
    panel: Axes, values: Sequence[float | None], color: str, line: str, spread: Sequence[float | None] = ()
) -> None:
    height = np.array(values, float)
    rounds = np.arange(len(height))
    panel.plot(rounds, height, line, color=color, marker="o", markersize=4)
    if len(spread):
        width = np.array(spread, float)
        panel.fill_between(rounds, height - width, height + width, color=color, alpha=0.15, linewidth=0)
