"""The figure of `rounds.py`: the gold of policies round after round, and by how far they have moved.

python benchmarks/rounds_figure.py docs/figures/rounds
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_rm.analysis.plots.style import BLUE, GREY, OTHERS, STYLE, save_figure

NAMES = {
    "baseline": ("retrained on nothing new", GREY),
    "labels": ("a tenth labelled", OTHERS[1]),
    "all": ("SimCSE, flips and labels", OTHERS[0]),
    "simcse": ("SimCSE", BLUE),
}
FILES = {"Fine-tuned on the best of eight": "rounds.json", "GRPO": "rounds_grpo.json"}
RESULTS = Path(__file__).parent / "results"
Runs = dict[str, dict[str, dict[str, Any]]]
Floats = NDArray[np.float64]


def of_worlds(runs: Runs, name: str, what: str) -> Floats:
    """(W, R) of a measure, a row a world."""
    rounds = [world["rounds"] for _, world in sorted(runs[name].items())]
    return np.array([[one[number][what] for number in sorted(one, key=int)] for one in rounds], np.float64)


def by_round(axes: Axes, runs: Runs) -> None:
    """Mean over worlds and one standard deviation, side by side."""
    names = [name for name in NAMES if name in runs]
    for aside, name in zip(np.linspace(-0.06, 0.06, len(names)), names, strict=True):
        label, color = NAMES[name]
        gold = of_worlds(runs, name, "gold")
        place, spread = np.arange(gold.shape[1]) + aside, gold.std(axis=0, ddof=1)
        axes.errorbar(place, gold.mean(axis=0), spread, color=color, marker="o", markersize=4, capsize=3, label=label)
    axes.set(xlabel="round", ylabel="gold")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def by_divergence(axes: Axes, runs: Runs) -> None:
    """A thin line a world, and the mean over worlds of each round."""
    for name, (_, color) in NAMES.items():
        if name in runs:
            kl, gold = of_worlds(runs, name, "kl"), of_worlds(runs, name, "gold")
            axes.plot(kl.T, gold.T, color=color, linewidth=0.8, alpha=0.35)
            axes.plot(kl.mean(axis=0), gold.mean(axis=0), color=color, marker="o", markersize=4)
    axes.set(xlabel="KL from the start policy, nats a response")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the figure, without a suffix")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of what rounds.py wrote")
    arguments = parser.parse_args()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.6), layout="constrained")
        grid = figure.subplots(2, 2, sharey=True)
        for (left, right), (title, name) in zip(grid, FILES.items(), strict=True):
            runs: Runs = json.loads((arguments.results / name).read_text(encoding="utf-8"))["runs"]
            by_round(left, runs)
            by_divergence(right, runs)
            left.set_title(title, fontsize=10.5)
        grid[0, 0].legend(loc="lower right", fontsize=9)
    save_figure(figure, arguments.out)


if __name__ == "__main__":
    main()
