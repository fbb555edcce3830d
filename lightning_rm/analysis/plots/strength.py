"""Figures of preference strength, after figures 1 to 3 of arXiv 2401.06080, and of what it finds. They know arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from lightning_rm.analysis.detection import detection, flagged
from lightning_rm.analysis.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    legend_below,
    line_of,
    one_panel,
    panel_grid,
    share_axis,
)
from lightning_rm.analysis.strength import Agreement, Groups, u_shape


def strength_distribution(mean: ArrayLike, std: ArrayLike, num_bins: int = 60) -> Figure:
    """Say how strength and the standard deviation of votes are spread over the pairs (arXiv 2401.06080, figure 1).

    Args:
        mean: (N,) strength; pairs without one (NaN) are left out.
        std: (N,) standard deviation of the votes.
        num_bins: of each histogram.

    Raises:
        ValueError: if no pair has strength.
    """
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    known = ~np.isnan(mean) & ~np.isnan(std)
    if not known.any():
        raise ValueError("no pair has strength: there is nothing to draw")
    mean, std = mean[known], std[known]
    with mpl.rc_context(STYLE):
        figure, (left, right) = panel_grid(2, 5.0, 3.8, below=0)
        draw_strengths(left, mean, num_bins)
        draw_disagreement(right, std, num_bins)
    return figure


def draw_strengths(axes: Axes, mean: ArrayLike, num_bins: int = 60) -> None:
    """Draw how strength is spread over pairs, with a line at 0.

    Args:
        axes: to draw on.
        mean: (N,) strength, a number for each.
        num_bins: of the histogram.
    """
    values = np.asarray(mean, np.float64)
    axes.hist(values, bins=num_bins, color=BLUE, alpha=0.75)
    axes.axvline(0, color="black", linestyle="--", linewidth=1.2)
    axes.set(title=f"Strength of {len(values):,} pairs, {np.mean(values < 0):.1%} below 0", xlabel="mean of the votes")
    _count_axis(axes)


def draw_disagreement(axes: Axes, std: ArrayLike, num_bins: int = 60) -> None:
    """Draw how the voters' disagreement is spread over pairs.

    Args:
        axes: to draw on.
        std: (N,) standard deviation of the votes, a number for each.
        num_bins: of the histogram.
    """
    values = np.asarray(std, np.float64)
    axes.hist(values, bins=num_bins, color=ORANGE, alpha=0.75)
    title = f"Disagreement of the voters, median {np.median(values):.2f}"
    axes.set(title=title, xlabel="standard deviation of the votes")
    _count_axis(axes)


def strength_by_group(groups: Groups) -> Figure:
    """Return mean and standard deviation of the votes by group of strength (arXiv 2401.06080, figure 2).

    Args:
        groups: from `grouped`.
    """
    with mpl.rc_context(STYLE):
        figure, (left, right) = panel_grid(2, 5.0, 3.8, below=0.3)
        draw_group_means(left, groups)
        draw_group_spreads(right, groups)
        legend_below(figure, 2)
    return figure


def draw_group_means(axes: Axes, groups: Groups) -> None:
    """Draw the mean of the votes by group, those below 0 in orange."""
    num_groups = len(groups.mean)
    position = (np.arange(num_groups) + 0.5) / num_groups
    axes.bar(position, groups.mean, 0.85 / num_groups, color=[ORANGE if mean < 0 else BLUE for mean in groups.mean])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title=f"Strength of {groups.num_pairs.sum():,} pairs in {num_groups} groups", ylabel="mean of the votes")
    share_axis(axes, "pairs by strength, weakest first")


def draw_group_spreads(axes: Axes, groups: Groups) -> None:
    """Draw the standard deviation of the votes by group, a ring round the least."""
    num_groups, shape = len(groups.mean), u_shape(groups)
    position = (np.arange(num_groups) + 0.5) / num_groups
    axes.plot(position, groups.std, color=BLUE, marker="o", markersize=4, label="group")
    look: Any = {"color": ORANGE, "linestyle": "", "marker": "o", "markersize": 9, "fillstyle": "none"}
    axes.plot(position[shape.group], shape.minimum, **look, label="the group whose voters agree most")
    axes.set(
        title=f"Spread: {shape.weakest:.2f} weakest, {shape.minimum:.2f} least, {shape.strongest:.2f} strongest",
        ylabel="standard deviation of the votes",
        ylim=(0, 1.05 * float(np.nanmax(groups.std)) or 1),
    )
    share_axis(axes, "pairs by strength, weakest first")


def agreement_by_strength(groups: Agreement) -> Figure:
    """Say how often an independent label agrees with the data's, by strength (arXiv 2401.06080, figure 3).

    Args:
        groups: from `agreement`; the bars are one standard error up and one down.
    """
    return one_panel(lambda axes: draw_agreement(axes, groups))


def draw_agreement(axes: Axes, groups: Agreement) -> None:
    """Draw the share of each group whose label another one agrees with, by the group's strength."""
    look: Any = {"color": BLUE, "marker": "o", "markersize": 4, "elinewidth": 1.2, "capsize": 3}
    axes.errorbar(groups.mean, groups.share, groups.error, **look)
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1.2)
    axes.set(xlabel="mean strength of the group", ylabel="share that agrees with the label", ylim=(0, 1.02))
    axes.set_title(f"Agreement over {groups.num_pairs.sum():,} pairs in {len(groups.mean)} groups")


def detection_curves(scores: Mapping[str, ArrayLike], wrong: ArrayLike) -> Figure:
    """Draw precision by recall of finding wrong labels, a line a score, over the pairs that have truth and every score.

    Args:
        scores: name to (N,) values that are low where the label looks wrong, from `detection_scores`.
        wrong: (N,) whether the label is wrong, NaN where nobody knows.

    Raises:
        ValueError: if no pair is wrong, or all are.
    """
    truth = np.asarray(wrong, np.float64)
    known = ~np.isnan([truth, *(np.asarray(score, np.float64) for score in scores.values())]).any(0)
    truth = truth[known]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5), layout="constrained")
        axes = figure.subplots()
        for index, (name, score) in enumerate(scores.items()):
            color, line = line_of(index)
            score = np.asarray(score, np.float64)[known]
            curve, result = flagged(score, truth), detection(score, truth)
            recall, precision = np.append(0, curve.recall), np.append(curve.precision[0], curve.precision)
            label = f"{name}: average precision {result.average_precision:.3f}, AUROC {result.auroc:.3f}"
            axes.plot(recall, precision, color=color, linestyle=line, drawstyle="steps-pre", label=label)
        axes.axhline(truth.mean(), color=GREY, linestyle=":", linewidth=1.2, label="chance")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall: share of the wrong labels found", ylabel="precision")
        axes.set_title(f"Finding {truth.sum():,.0f} wrong labels among {len(truth):,} pairs")
        figure.legend(loc="outside lower center")
    return figure


def _count_axis(axes: Axes) -> None:
    axes.set_ylabel("pairs")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
