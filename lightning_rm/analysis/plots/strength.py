"""Figures of preference strength, after figures 1 to 3 of arXiv 2401.06080, and of what it finds. They know arrays."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from lightning_rm.analysis.detection import detection, flagged
from lightning_rm.analysis.plots.style import BLUE, GREY, LINES, ORANGE, STYLE, share_axis
from lightning_rm.analysis.strength import Agreement, Groups, u_shape


def strength_distribution(mean: ArrayLike, std: ArrayLike, num_bins: int = 60) -> Figure:
    """How strength and the standard deviation of votes are spread over the pairs (arXiv 2401.06080, figure 1).

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
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, values, color in ((left, mean, BLUE), (right, std, ORANGE)):
            axes.hist(values, bins=num_bins, color=color, alpha=0.75)
            axes.set_ylabel("pairs")
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        left.axvline(0, color="black", linestyle="--", linewidth=1.2)
        left.set_title(f"Strength of {len(mean):,} pairs, {np.mean(mean < 0):.1%} below 0")
        left.set_xlabel("mean of the votes")
        right.set_title(f"Disagreement of the voters, median {np.median(std):.2f}")
        right.set_xlabel("standard deviation of the votes")
    return figure


def strength_by_group(groups: Groups) -> Figure:
    """Mean and standard deviation of the votes by group of strength (arXiv 2401.06080, figure 2).

    Args:
        groups: from `grouped`.
    """
    num_groups, shape = len(groups.mean), u_shape(groups)
    position = (np.arange(num_groups) + 0.5) / num_groups
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        colors = [ORANGE if mean < 0 else BLUE for mean in groups.mean]
        left.bar(position, groups.mean, 0.85 / num_groups, color=colors)
        left.axhline(0, color="black", linewidth=0.8)
        left.set_title(f"Strength of {groups.num_pairs.sum():,} pairs in {num_groups} groups")
        left.set_ylabel("mean of the votes")
        right.plot(position, groups.std, color=BLUE, marker="o", markersize=4)
        right.plot(position[shape.group], shape.minimum, color=ORANGE, marker="o", markersize=9, fillstyle="none")
        right.set_title(
            f"Spread: {shape.weakest:.2f} weakest, {shape.minimum:.2f} least, {shape.strongest:.2f} strongest"
        )
        right.set_ylabel("standard deviation of the votes")
        right.set_ylim(0, 1.05 * float(np.nanmax(groups.std)))
        for axes in (left, right):
            share_axis(axes, "pairs by strength, weakest first")
    return figure


def agreement_by_strength(groups: Agreement) -> Figure:
    """How often an independent label agrees with the data's, by strength (arXiv 2401.06080, figure 3).

    Args:
        groups: from `agreement`; the bars are one standard error up and one down.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.errorbar(
            groups.mean, groups.share, groups.error, color=BLUE, marker="o", markersize=4, elinewidth=1.2, capsize=3
        )
        axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
        axes.axvline(0, color=GREY, linestyle="--", linewidth=1.2)
        axes.set(xlabel="mean strength of the group", ylabel="share that agrees with the label", ylim=(0, 1.02))
        axes.set_title(f"Agreement over {groups.num_pairs.sum():,} pairs in {len(groups.mean)} groups")
    return figure


def detection_curves(scores: Mapping[str, ArrayLike], wrong: ArrayLike) -> Figure:
    """Precision by recall of finding wrong labels, a line a score, over the pairs that have truth and every score.

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
            color, line = LINES[index % len(LINES)]
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
