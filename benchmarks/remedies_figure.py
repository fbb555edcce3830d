"""The figure of all rows of `shift.py`: what each is ahead of the baselines of its worlds, with its interval.

python benchmarks/remedies_figure.py benchmarks/results/shift.json docs/figures/remedies
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from shift_table import FIGURES, Row, against
from shift_table import Figure as Measure

from lightning_rm.analysis.paired import Difference
from lightning_rm.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, save_figure

NAMES = {
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
PANELS = {
    "clean pairs": "Accuracy on clean base pairs",
    "rank correlation, policy of 64": "Rank correlation,\nresponses of the policy of 64",
    "gold of its best of 64": "Gold of the next policy,\nits best of 64",
}
COLORS = {"higher": BLUE, "lower": ORANGE}


def draw(axes: Axes, runs: dict[str, dict[str, Row]], measure: Measure) -> None:
    """A dot and its 95 % interval a row; grey where zero lies within."""
    for place, name in enumerate(NAMES):
        found: Difference | None = against(runs, name, measure, "baseline")
        if found is not None:
            color = COLORS.get(found.verdict, GREY)
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=2)
            axes.plot(found.mean, place, "o", color=color, markersize=5)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(NAMES)), list(NAMES.values()))
    axes.set_ylim(len(NAMES) - 0.4, -0.6)
    axes.set_xlabel("difference from the baselines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what shift_table.py --out wrote")
    parser.add_argument("out", type=Path, help="the figure, without a suffix")
    arguments = parser.parse_args()
    runs = json.loads(arguments.results.read_text(encoding="utf-8"))["runs"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 6.4), layout="constrained")
        panels = figure.subplots(1, len(PANELS))
        for axes, (what, title) in zip(panels, PANELS.items(), strict=True):
            draw(axes, runs, FIGURES[what][0])
            axes.set_title(title, fontsize=10.5)
            axes.tick_params(labelleft=axes is panels[0])
    save_figure(figure, arguments.out)


if __name__ == "__main__":
    main()
