"""The figures of `shift.py`: what rows make of the policy's responses and of the next policy, a dot a world, of the
first of the files that are named; and of all of them what every row is ahead of the baselines of its worlds, with its
interval.

python benchmarks/shift_figure.py benchmarks/results/shift.json benchmarks/results/shift_seeds.json docs/figures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from shift_table import FIGURES, OTHER_SEEDS, Row, against, read_all
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
REMEDIES = {
    "simcse_flip_fresh": "SimCSE, flips and fresh labels",
    "simcse": "SimCSE, light",
    "simcse_1": "SimCSE at the paper's weight",
    "two_views": "its two views alone",
    "simcse_diff": "SimCSE on differences",
    "swav": "SwAV",
    "swav_diff": "SwAV on differences",
    "flip_fresh": "a tenth flipped, a third fresh",
    "fresh_50": "half of the labels fresh",
    "fresh_33": "a third fresh",
    "fresh_33_disputed": "a third fresh, disputed pairs",
    "fresh_10": "a tenth fresh",
    "flip": "a tenth flipped",
    "soft_label_margin": "soft label + margin",
    "soft_label": "soft labels of five models",
    "ensemble_mean": "mean of five models",
    "mean_minus_variance": "mean minus variance",
    "worst_case": "worst case of five",
    "distilled": "mean of five, distilled",
    "warm": "WARM, averaged weights",
    "meta_up": "MetaRM up",
    "meta_up_above": "MetaRM up, at the moved weights",
    "meta_down": "MetaRM down",
}
DIFFERENCES = {
    "clean pairs": "Accuracy on clean base pairs",
    "rank correlation, policy of 64": "Rank correlation,\nresponses of the policy of 64",
    "gold of its best of 64": "Gold of the next policy,\nits best of 64",
}
COLORS = {"higher": BLUE, "lower": ORANGE}


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


def draw_differences(axes: Axes, runs: dict[str, dict[str, Row]], measure: Measure) -> None:
    """A dot and its 95 % interval a row; grey where zero lies within."""
    for place, name in enumerate(REMEDIES):
        found = against(runs, name, measure, "baseline")
        if found is not None:
            color = COLORS.get(found.verdict, GREY)
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=2)
            axes.plot(found.mean, place, "o", color=color, markersize=5)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(REMEDIES)), list(REMEDIES.values()))
    axes.set_ylim(len(REMEDIES) - 0.4, -0.6)
    axes.set_xlabel("difference from the baselines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="what shift_table.py --out wrote, no seed twice")
    parser.add_argument("out", type=Path, help="the folder of the figures shift and remedies")
    arguments = parser.parse_args()
    first, runs = (read_all(places, "rows") for places in (arguments.results[:1], arguments.results))
    with mpl.rc_context(STYLE):
        shift = Figure(figsize=(9.6, 3.7), layout="constrained")
        for axes, (what, title) in zip(shift.subplots(1, 2), PANELS.items(), strict=True):
            draw(axes, first, FIGURES[what][0])
            axes.set_title(title, fontsize=10.5)
        remedies = Figure(figsize=(10.4, 6.4), layout="constrained")
        panels = remedies.subplots(1, len(DIFFERENCES))
        for axes, (what, title) in zip(panels, DIFFERENCES.items(), strict=True):
            draw_differences(axes, runs, FIGURES[what][0])
            axes.set_title(title, fontsize=10.5)
            axes.tick_params(labelleft=axes is panels[0])
    save_figure(shift, arguments.out / "shift")
    save_figure(remedies, arguments.out / "remedies")


if __name__ == "__main__":
    main()
