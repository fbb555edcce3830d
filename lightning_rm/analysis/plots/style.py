"""The look that all figures share, and how a figure is written. It knows no data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from lightning_rm.drafts import draft_of

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
    "text.parse_math": False,  # names are of users: a dollar is a dollar
}
"""Matplotlib settings of every figure; whatever else the user has set stays in force."""

OTHERS = (ORANGE, "#009E73", "#CC79A7", SKY, "#E69F00")
"""Okabe and Ito's colours, told apart by every kind of colour vision."""


@contextmanager
def saving(settings: dict[Any, Any] | None = None) -> Generator[None]:
    """Set the common style, and some settings more, while a figure is saved; letters that the font lacks are no
    news.
    """
    with mpl.rc_context({**STYLE, **(settings or {})}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def save_figure(figure: Figure, path: str | Path) -> list[Path]:
    """Write a figure as PNG and as SVG, without dates or versions in them.

    Args:
        figure: the figure.
        path: where to, without a suffix; the folder is made.

    Returns:
        The two files.
    """
    png, svg = figure_files(path)
    write_png(figure, png)
    figure.set_layout_engine("none")  # everything has its place now; finding it is a third of the work
    with saving(), draft_of(svg) as draft:
        figure.savefig(draft, format="svg", metadata={"Date": None, "Creator": None})
    return [png, svg]


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, the same bytes each time, and return the file."""
    with saving(), draft_of(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})
    return path


def figure_files(path: str | Path) -> list[Path]:
    """Return the two files of a figure, from its path without a suffix."""
    path = Path(path)
    return [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]


Series = tuple[ArrayLike, ArrayLike, ArrayLike]
"""Positions, mean accuracies and spreads over seeds, (n,) each; a spread that nobody knows is NaN."""


MARKERS = "osD^vP"


LINES = tuple((color, line) for line in ("-", "--", ":") for color in (BLUE, *OTHERS))
"""Colour and line of each series; the first ones are told apart by colour alone."""


def line_of(place: int) -> tuple[str, str]:
    """Return colour and line of a figure's series by its place, and begin anew after the last one."""
    return LINES[place % len(LINES)]


def marked_line(place: int) -> dict[str, Any]:
    """Return how a series of few points is drawn, by its place: the same line, with a marker of its own."""
    color, line = line_of(place)
    return {"color": color, "linestyle": line, "marker": MARKERS[place % len(MARKERS)], "markersize": 5}


class Key(NamedTuple):
    """An entry of a legend: what is called so is drawn in this colour and line (`-`, `--`, `:`)."""

    name: str
    color: str
    line: str = "-"


def share_axis(axes: Axes, label: str) -> None:
    """Make a horizontal axis of shares, from 0 to all."""
    axes.set_xlabel(label)
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def step_axis(axes: Axes) -> None:
    """Make a horizontal axis of optimizer steps, whole numbers that leave each other room."""
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def panel_grid(
    num: int, width: float, height: float, *, least: float = 6.4, below: float = 0.6
) -> tuple[Figure, list[Axes]]:
    """Return a figure of `num` panels, three a row, to be filled within `STYLE`.

    Args:
        num: of panels.
        width: of a panel, in inches.
        height: of a panel.
        least: width of the figure, so that its title has room where there is one panel.
        below: room for a legend.
    """
    num_columns = min(3, num)
    num_rows = -(-num // num_columns)
    figure = Figure(figsize=(max(least, width * num_columns), height * num_rows + below), layout="constrained")
    grid: list[Axes] = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
    for axes in grid[num:]:
        axes.remove()
    return figure, grid[:num]


def one_panel(draw: Callable[[Axes], None], size: tuple[float, float] = (6.4, 4.2)) -> Figure:
    """Return a figure of one panel, drawn in the common style, with its legend beneath where it has names to tell
    apart.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        legend_below(figure, columns=3)
    return figure


def figure_title(figure: Figure, title: str) -> None:
    """Write what a figure of several panels shows, above them at the left."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def legend_below(
    figure: Figure, columns: int, *, title: str | None = None, first: Sequence[str] = (), last: str | None = None
) -> None:
    """Draw one legend for all panels beneath them, each name once; none where there is no name.

    Args:
        figure: whose panels have drawn all their lines.
        columns: entries a row, or fewer, so that none reaches over the figure's edge.
        title: what the names are of.
        first: names to begin with, in this order: matplotlib puts those that have error bars behind all others.
        last: a name to put at the end, such as that of a reference.
    """
    named = [axes.get_legend_handles_labels() for axes in figure.axes]
    found = {label: handle for handles, labels in named for handle, label in zip(handles, labels, strict=True)}
    # Of a line with error bars the line: bars of a made-up length say nothing, and run through the marker.
    found = {label: one.lines[0] if isinstance(one, ErrorbarContainer) else one for label, one in found.items()}
    found = {**{name: found[name] for name in first if name in found}, **found}
    if last in found:
        found[last] = found.pop(last)
    if found:
        handles, labels = list(found.values()), list(found)
        for num in range(min(columns, len(found)), 0, -1):
            legend = figure.legend(handles, labels, title=title, loc="outside lower center", ncols=num)
            if num == 1 or legend.get_window_extent().width <= figure.bbox.width:
                break
            legend.remove()


def with_legend(figure: Figure, keys: Sequence[Key]) -> Figure:
    """Return a copy of a figure with a legend beneath it, for which it grows: where it stands by itself."""
    own = deepcopy(figure)
    with mpl.rc_context(STYLE):
        looks: list[dict[str, Any]] = [{"color": key.color, "linestyle": key.line} for key in keys]
        handles = [Line2D([], [], **look, label=shorten(key.name)) for key, look in zip(keys, looks, strict=True)]
        own.set_figheight(own.get_figheight() + 0.2 * len(handles))
        own.legend(handles=handles, loc="outside lower left", ncols=1, fontsize=9)
    return own


def shorten(name: str, letters: int = 60) -> str:
    """Return a name that fits beneath a panel, or beside it."""
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def draw_series(axes: Axes, series: Series, look: dict[str, Any], label: str) -> None:
    """Draw means over positions, with a bar of one spread up and down where several runs have one."""
    positions, means, spreads = (np.asarray(values, np.float64) for values in series)
    if np.isnan(spreads).all():
        axes.plot(positions, means, **look, label=label)
    else:
        axes.errorbar(positions, means, spreads, **look, elinewidth=1.2, capsize=3, label=label)
