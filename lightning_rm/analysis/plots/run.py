"""Figures of a run: training curves, reward histogram, reliability diagram. They know arrays and one style.

Figures are `matplotlib.figure.Figure` objects made without pyplot, so nothing global is kept and no display is needed.
The same numbers give the same file, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lightning_rm.analysis.calibration import reliability
from lightning_rm.analysis.history import History, keys_of, running_mean, within_training
from lightning_rm.analysis.plots.style import BLUE, GREY, ORANGE, OTHERS, SKY, STYLE, panel_grid, step_axis
from lightning_rm.analysis.words import key_words, titled
from lightning_rm.counts import number_of

COLOURS = {"chosen": BLUE, "rejected": ORANGE, "alone": GREY, "responses": BLUE}
"""Of a histogram of rewards."""


def training_curves(
    history: History, losses: Sequence[str] | None = None, accuracies: Sequence[str] | None = None
) -> Figure:
    """Draw loss and accuracy of training and validation over the steps of the optimizer.

    Curves of many points are drawn faint, with a running mean over them. What was logged after the last training step,
    such as an evaluation of the best weights, is left out.

    Args:
        history: from `read_history`.
        losses: keys of the left panel; by default `train/loss` and `val/nll`, of each validation set where there are
            several.
        accuracies: keys of the right panel; by default those of `accuracy`, and `val/length_accuracy`.

    Returns:
        A figure of two panels, the second of perplexity where text was trained, and of rewards' rank correlation with
        scores where there are these alone; a panel of which nothing was logged says so.
    """
    of_text = losses is None and accuracies is None and "train/perplexity" in history
    if of_text:
        losses, accuracies = (
            [*keys_of(history, "train", name), *keys_of(history, "val", name)] for name in ("loss", "perplexity")
        )
    if losses is None:
        losses = [*keys_of(history, "train", "loss"), *keys_of(history, "val", "nll")]
    if accuracies is None:
        baseline = [key for key in ("val/length_accuracy",) if key in history]
        accuracies = [*keys_of(history, "train", "accuracy"), *keys_of(history, "val", "accuracy"), *baseline]
    correlations = [] if accuracies else keys_of(history, "val", "score_rank_correlation")
    lines = max(len(losses), len(accuracies)) + 1
    with mpl.rc_context(STYLE):
        figure, (left, right) = panel_grid(2, 5.0, 3.9 + 0.21 * lines, below=0)
        panels = (
            (left, "Loss", losses, np.log(2), "log 2, of guessing"),
            (right, "Accuracy", accuracies, 0.5, "one half, of guessing"),
        )
        if of_text:
            panels = (left, "Loss", losses, None, ""), (right, "Perplexity", accuracies, None, "")
        elif correlations:  # of single responses with scores
            panels = (left, "Loss", losses, None, ""), (right, "Rank correlation", correlations, 0.0, "0, of guessing")
        for axes, title, keys, chance, name in panels:
            axes.set_title(f"{title} over training")
            if not keys:
                axes.set(xticks=[], yticks=[])
                axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", va="center", color=GREY)
                continue
            _draw_curves(axes, {key: within_training(history[key], history) for key in keys})
            if chance is not None:
                axes.axhline(chance, color=GREY, linewidth=1, linestyle=":", label=name)
            step_axis(axes)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def reward_histogram(
    chosen: ArrayLike, rejected: ArrayLike, num_bins: int = 40, data_set: str = "", alone: ArrayLike = ()
) -> Figure:
    """Return the rewards of chosen and of rejected responses over each other, on shared bins, their means marked.

    Args:
        chosen: (P,) rewards.
        rejected: (P,) rewards of the same pairs.
        num_bins: equal bins over the range of both.
        data_set: named in the title.
        alone: rewards of responses by themselves, which are of no pair.

    Raises:
        ValueError: if there are neither pairs nor such responses, or a reward is not finite.
    """
    num_alone, num_pairs = np.size(alone), np.size(chosen)
    rewards, said = dict[str, NDArray[np.float64]](), list[str]()
    if num_pairs or not num_alone:
        rewards = {"chosen": _finite("chosen", chosen), "rejected": _finite("rejected", rejected)}
        mean = (rewards["chosen"] - rewards["rejected"]).mean()
        said.append(f"{num_pairs:,} pairs, mean margin {mean:.2f}")
    if num_alone:
        rewards["alone" if num_pairs else "responses"] = _finite("alone", alone)
        said.append(f"{number_of(num_alone, 'response')}{' alone' if num_pairs else ''}")
    edges = np.histogram_bin_edges(np.concatenate(list(rewards.values())), bins=num_bins)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4), layout="constrained")
        axes = figure.subplots()
        for name, values in rewards.items():
            color = COLOURS[name]
            counts, _ = np.histogram(values, bins=edges)
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.4, label=f"{name}, mean {values.mean():.2f}")
            axes.stairs(counts, edges, color=color, linewidth=1.2)
            axes.axvline(values.mean(), color=color, linestyle="--")
        axes.set_title(f"Rewards{_of(data_set)}: {'; '.join(said)}")
        axes.set_xlabel("reward")
        axes.set_ylabel("responses")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        figure.legend(loc="outside lower center", ncols=len(rewards))
    return figure


def reliability_diagram(margins: ArrayLike, labels: ArrayLike, num_bins: int = 10, data_set: str = "") -> Figure:
    """Draw accuracy by confidence, folded, against the diagonal of perfect calibration; beneath, the pairs of each bin.

    Args:
        margins: (P,) reward of chosen minus reward of rejected.
        labels: (P,) probability that chosen is preferred.
        num_bins: equal bins of confidence on [1/2, 1].
        data_set: named in the title.

    Raises:
        ValueError: if there are no pairs, or a margin or label is not finite.
    """
    bins = reliability(_finite("margins", margins), _finite("labels", labels), num_bins)
    width = 0.5 / num_bins
    lefts = 0.5 + width * np.arange(num_bins)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 5.6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        top.bar(lefts, bins.accuracy, width, align="edge", color=SKY, edgecolor="white", label="accuracy")
        low, high = np.minimum(bins.accuracy, bins.confidence), np.maximum(bins.accuracy, bins.confidence)
        top.bar(lefts, high - low, width, low, align="edge", color="none", edgecolor=ORANGE, hatch="////", label="gap")
        top.plot([0.5, 1], [0.5, 1], color=GREY, linestyle="--", linewidth=1.2, label="calibrated")
        top.set(xlim=(0.5, 1), ylim=(0, 1), ylabel="accuracy")
        top.set_title(
            f"Calibration error{_of(data_set)}: {bins.calibration_error:.3f} over {bins.num_pairs.sum():,} pairs"
        )
        bottom.bar(lefts, bins.num_pairs, width, align="edge", color=GREY, edgecolor="white")
        bottom.set(xlabel="confidence, max(p, 1 - p)", ylabel="pairs")
        bottom.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_curves(axes: Axes, curves: History) -> None:
    """Draw curves, each under its key in words: training in blue, the length-only baseline in grey.

    A single point, such as the validation of a run of one epoch, is a dot.
    """
    others = iter([(color, style) for style in ("-", "-.") * len(curves) for color in OTHERS])
    for key, (steps, values) in curves.items():
        label = titled(key_words(key))
        if key.endswith("/length_accuracy"):
            axes.plot(
                steps, values, color=GREY, linestyle="--", marker="o" if len(values) == 1 else "", ms=4, label=label
            )
            continue
        color, style = (BLUE, "-") if key.startswith("train") else next(others)
        window = len(values) // 20
        if window > 1:
            axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            steps, values = running_mean(steps, window), running_mean(values, window)
            label = f"{label}, mean of {window}"
        marker = "o" if len(values) <= 20 else ""
        axes.plot(steps, values, color=color, linestyle=style, marker=marker, markersize=4, label=label)


def _of(data_set: str) -> str:
    """Return the set in a title."""
    return f" on {data_set}" if data_set else ""


def _finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return the values as a flat float64 array."""
    array = np.asarray(values, np.float64).ravel()
    if not array.size:
        raise ValueError(f"{name} is empty: there are no pairs to draw")
    if num_bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{name}: {num_bad} of {array.size} values are not finite; has training diverged?")
    return array
