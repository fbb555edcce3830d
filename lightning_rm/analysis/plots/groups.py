"""Shares by group with their intervals: where the doubted labels are. It knows rows of a table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lightning_rm.analysis.plots.style import BLUE, GREY, STYLE, shorten

MAX_LETTERS = 40
"""A longer name of a group is cut."""


def doubted_by_group(rows: Sequence[Mapping[str, object]], title: str, overall: float) -> Figure:
    """Return the share of labels that the voters contradict in each group, a bar for its 95 % interval.

    Args:
        rows: as `curation.groups.group_rows` makes them, from the top down.
        title: of the figure.
        overall: the share among all pairs, as a line.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 1.3 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        place = np.arange(len(rows))[::-1]
        middle, low, high = (
            np.array([cast(float, row[name]) for row in rows]) for name in ("doubted", "doubted, low", "doubted, high")
        )
        axes.errorbar(middle, place, xerr=[middle - low, high - middle], fmt="o", color=BLUE, capsize=3)
        axes.axvline(overall, color=GREY, linestyle="--", linewidth=1)
        axes.set_yticks(place, [shorten(str(row["group"]), MAX_LETTERS) for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_xlabel("labels that the voters contradict (line: of all pairs)")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title(title)
    return figure
