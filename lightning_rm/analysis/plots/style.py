"""The look that all figures share, and how a figure is written. It knows no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

BLUE, ORANGE, SKY, GREY = "#0072B2", "#D55E00", "#56B4E9", "#777777"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
    "savefig.dpi": 160,
    "savefig.facecolor": "white",
    "svg.hashsalt": "lightning-rm",
}
"""Matplotlib settings of every figure; whatever else the user has set stays in force."""


OTHERS = (ORANGE, "#009E73", "#CC79A7", SKY, "#E69F00")
"""Okabe and Ito's colours, told apart by every kind of colour vision."""


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as PNG and as SVG, without dates or versions in them.

    Args:
        figure: the figure.
        path: where to, without a suffix; the folder is made.

    Returns:
        The two files.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")
    with mpl.rc_context(STYLE):
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


Series = tuple[ArrayLike, ArrayLike, ArrayLike]
"""Positions, mean accuracies and spreads over seeds, (n,) each; a spread that nobody knows is NaN."""


MARKERS = "osD^vP"


LINES = tuple((color, line) for line in ("-", "--", ":") for color in (BLUE, *OTHERS))
"""Colour and line of each series; the first ones are told apart by colour alone."""


def share_axis(axes: Axes, label: str) -> None:
    """A horizontal axis of shares, from 0 to all."""
    axes.set_xlabel(label)
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
