"""The figure of `shift.py`: what rows make of the policy's responses and of the next policy, a dot a world.

python benchmarks/shift_figure.py benchmarks/results/shift.json docs/figures/shift
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from shift_table import FIGURES, OTHER_SEEDS, Row
from shift_table import Figure as Measure

from lightning_rm.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, save_figure

NAMES = {
    "baseline": "trained\nanew",
    "flip": "flip a\ntenth",
    "simcse": "SimCSE",
    "fresh_33": "a third\nfresh",
    "flip_fresh": "flip and\nfresh",
    "simcse_flip_fresh": "all\nthree",
}
PANELS = {
    "rank correlation, policy of 64": "Responses of the policy, ordered as gold does\n(rank correlation)",
    "gold of its best of 64": "What the next policy says is worth\n(gold of the best of 64)",
}


def draw(axes: Axes, runs: dict[str, dict[str, Row]], measure: Measure) -> None:
    """A dot a world, and a bar at their mean."""
    worlds = sorted(set.intersection(*(set(runs[name]) for name in (*NAMES, *OTHER_SEEDS))))
    for place, name in enumerate(NAMES):
        of_row = [name, *OTHER_SEEDS] if name == "baseline" else [name]
        values = np.array([[measure(runs[one][world]) for world in worlds] for one in of_row])
        aside = np.linspace(-0.16, 0.16, len(worlds))
        color = {"baseline": GREY, "simcse_flip_fresh": ORANGE}.get(name, BLUE)
        axes.plot(place + np.tile(aside, len(of_row)), values.ravel(), "o", color=color, markersize=4, alpha=0.6)
        axes.hlines(values.mean(), place - 0.3, place + 0.3, color=color, linewidth=2.5)
    axes.set_xticks(range(len(NAMES)), list(NAMES.values()))
    axes.set_xlim(-0.5, len(NAMES) - 0.5)
    axes.grid(visible=False, axis="x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what shift_table.py --out wrote")
    parser.add_argument("out", type=Path, help="the figure, without a suffix")
    arguments = parser.parse_args()
    runs = json.loads(arguments.results.read_text(encoding="utf-8"))["runs"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.7), layout="constrained")
        for axes, (what, title) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
            draw(axes, runs, FIGURES[what][0])
            axes.set_title(title, fontsize=10.5)
    save_figure(figure, arguments.out)


if __name__ == "__main__":
    main()
