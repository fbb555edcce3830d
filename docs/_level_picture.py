"""Draw the figure on levels of docs/methods.md: python -m docs._level_picture, from the repository's root.

Nothing is trained: both panels are the package's own loss functions, over the margin of one pair.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib import pyplot as plt

from lightning_rm.analysis.plots.style import BLUE, GREY, LINES, ORANGE, SKY, saving
from lightning_rm.losses.ordinal import ordinal_losses
from lightning_rm.losses.ranking import ranking_losses

FIGURE = Path(__file__).parent / "figures" / "levels.png"
THRESHOLDS = torch.tensor([1.0, 2.5, 4.5])
NAMES = {  # each level's name, and where it stands beside its curve
    3: ("much better", 5.6, 0.83, "right"),
    2: ("better", 3.5, 0.49, "center"),
    1: ("slightly better", 1.75, 0.39, "center"),
    0: ("a tie", 0.0, 0.49, "center"),
    -1: ("slightly worse", -1.9, 0.39, "center"),
}
COLOURS = (BLUE, SKY, "#009E73", GREY, ORANGE)


def main() -> None:
    """Write the figure."""
    margin, zero = torch.linspace(-4, 8, 241), torch.zeros(241)
    losses = {
        "Bradley-Terry": ranking_losses(margin, zero),
        "scaled by 3": ranking_losses(margin, zero, weight=3.0),
        "target margin 3": ranking_losses(margin, zero, margin=3.0),
        "level 3 of 3": ordinal_losses(margin, torch.full((241,), 3), THRESHOLDS),
        "level 1 of 3": ordinal_losses(margin, torch.full((241,), 1), THRESHOLDS),
    }
    with saving({"font.size": 12, "axes.titlesize": 13}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
        for (level, (name, x, y, side)), colour in zip(NAMES.items(), COLOURS, strict=True):
            probability = (-ordinal_losses(margin, torch.full((241,), level), THRESHOLDS)).exp()
            left.plot(margin, probability, color=colour)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a label is read over the curves
            left.text(x, y, name, color=colour, ha=side, bbox=box)
        for number, threshold in enumerate(THRESHOLDS.tolist(), 1):
            left.axvline(threshold, color=GREY, linewidth=1, linestyle=":")
            left.text(threshold + 0.1, 1.01, f"t{number}", color=GREY)
        left.set(
            title="The larger the margin, the higher the likeliest level",
            ylabel="probability of the level",
            ylim=(0, 1.1),
        )
        for (name, loss), (colour, line) in zip(losses.items(), LINES, strict=False):
            right.plot(margin, loss, color=colour, linestyle=line, label=name)
        right.set(title="What a pair costs, by what is said of it", ylabel="loss of the pair", ylim=(0, 8))
        right.legend()
        for axes in (left, right):
            axes.set(xlabel="reward of chosen minus reward of rejected", xlim=(-4, 8))
        figure.savefig(FIGURE, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
