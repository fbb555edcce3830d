"""Treatments of what a pair is trained towards: its label, margin, level and weight.

Each is a pure function of strength and targets to targets; with their options fixed they chain in `treat`. Those that
leave pairs out are `strength.selection`'s.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from lightning_rm.counts import check_counts, is_number, is_positive
from lightning_rm.strength.selection import decile, drop, prefix, select
from lightning_rm.strength.targets import Targets, turned_round
from lightning_rm.strength.votes import Bools, Floats, Strength, in_ranges, quantiles

__all__ = [
    "Pairs",
    "adaptive_margin",
    "decile",
    "drop",
    "flip",
    "label_smoothing",
    "levels",
    "noise_corrected",
    "prefix",
    "select",
    "soft_label",
    "weight",
]

Pairs = Literal["all", "negative"] | Sequence[float]
"""Which pairs a treatment is for: all, those of negative strength, or those of a quantile range `[low, high)`."""


def flip(
    strength: Strength,
    targets: Targets,
    *,
    below_quantile: float | None = None,
    below_mean: float | None = None,
    keep_margin: bool = False,
) -> Targets:
    """Turn the label round where the voters contradict it (arXiv 2401.06080, section 2.4.1).

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        below_quantile: flip the pairs below this quantile; the paper's full run flips 0.1.
        below_mean: flip the pairs whose strength is below this; 0 flips all that the voters contradict. Exactly one of
            the two is given.
        keep_margin: the responses change places and the target margin stays as it was, so it is negated as told of the
            old names. False negates it with them: the strength of (rejected, chosen) is -m.

    Raises:
        ValueError: if none or both bounds are given, a mean is not a number, or a quantile not within [0, 1].
    """
    if below_mean is not None and not is_number(below_mean):
        raise ValueError(f"below_mean={below_mean!r}; give a number, 0 for all pairs that the voters contradict")
    if (below_quantile is None) == (below_mean is None):
        raise ValueError(f"flip needs below_quantile or below_mean, one of them; got {below_quantile} and {below_mean}")
    if below_quantile is not None and not 0 <= below_quantile <= 1:
        raise ValueError(
            f"below_quantile={below_quantile} is not a quantile; give a number from 0 to 1, 0.1 for a tenth"
        )
    turned = strength.quantile < below_quantile if below_quantile is not None else strength.mean < (below_mean or 0.0)
    sign = np.where(turned & keep_margin, -1.0, 1.0)
    return replace(
        turned_round(targets, turned),
        margin=sign * targets.margin,
        strength_sign=sign * targets.strength_sign,
    )


def label_smoothing(strength: Strength, targets: Targets, *, alpha: float = 0.2, pairs: Pairs = "all") -> Targets:
    """Move labels towards the other side: `(1 - alpha) label + alpha (1 - label)` (arXiv 2401.06080, eq 5).

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        alpha: how far; at 1/2 a label says nothing. The paper names no value; its loss curve ends at the entropy of .2.
        pairs: which pairs.

    Raises:
        ValueError: if alpha is not within [0, 1/2], or `pairs` is not one of its kinds.
    """
    if not 0 <= alpha <= 0.5:
        raise ValueError(f"alpha={alpha} is not a share to smooth labels by; give a number from 0 to 0.5")
    smoothed = (1 - alpha) * targets.label + alpha * (1 - targets.label)
    return replace(targets, label=np.where(_mask(strength, pairs), smoothed, targets.label))


def soft_label(
    strength: Strength, targets: Targets, *, source: Literal["mean", "votes"] = "mean", temperature: float = 1.0
) -> Targets:
    """Replace the label by what the voters believe: `sigmoid(mean / temperature)`, or the share of their votes.

    That is below 1/2 where they contradict the label: `flip` must not come after it, where it would turn this belief
    round, nor before it, where its flips would be undone.

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        source: `mean`, or `votes` for the share of votes for chosen.
        temperature: of the sigmoid; above 1 softens.

    Raises:
        ValueError: if the source is neither of the two, the temperature not above 0, or the data has no votes to share.
    """
    if not is_positive(temperature):
        raise ValueError(f"temperature={temperature} must be above 0; 1 takes the voters at their word")
    if source == "mean":
        believed = _sigmoid(strength.mean / temperature)
    elif source == "votes":
        believed = _share(strength)
    else:
        raise ValueError(f"source={source!r}; soft labels come from 'mean' or from 'votes'")
    known = ~np.isnan(strength.mean)
    return replace(
        targets,
        label=np.where(known, believed, targets.label),
        margin=np.where(known, targets.strength_sign, 1.0) * targets.margin,
        flipped=targets.flipped & ~known,
        strength_sign=np.where(known, 1.0, targets.strength_sign),
    )


def adaptive_margin(
    strength: Strength, targets: Targets, *, scale: float = 1.0, clip: float | None = None, clamp: bool = False
) -> Targets:
    """Make the strength of a pair its target margin (arXiv 2401.06080, eq 6, with its bracket put right).

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        scale: times the strength.
        clip: the largest size of a margin; None for no bound.
        clamp: take margins that contradict the label for 0. The paper's are signed: its curves start where a negative
            margin makes the loss small.

    Raises:
        ValueError: if scale is not a number, or clip not one above 0.
    """
    if not is_number(scale):
        raise ValueError(f"scale={scale!r}; give a number, 1 for the strengths as they are")
    if clip is not None and not is_positive(clip):
        raise ValueError(f"clip={clip} must be above 0; null for no bound")
    margin = scale * targets.strength_sign * strength.mean
    if clip is not None:
        margin = np.clip(margin, -clip, clip)
    if clamp:
        margin = np.where(targets.label < 0.5, np.minimum(margin, 0), np.maximum(margin, 0))
    return replace(targets, margin=np.where(np.isnan(strength.mean), targets.margin, margin))


def levels(
    strength: Strength,
    targets: Targets,
    *,
    num_levels: int = 3,
    source: Literal["mean", "votes", "quantile"] = "mean",
    scale: float = 1.0,
) -> Targets:
    """Give every pair a level of preference, a whole number from -K to K, for `OrdinalRM`; 0 is a tie.

    People's own levels (HelpSteer's -3 to 3) are strengths already and come through as they are. Of voters, the share
    s of votes for chosen makes the level `(2 s - 1) K`, rounded; or the size of the strength is cut into K parts of as
    many pairs each, and the level has its sign.

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        num_levels: K.
        source: `mean` takes the strength itself, times `scale` and rounded, `votes` their share, `quantile` the rank
            of its size.
        scale: times the strength, for `mean`.

    Raises:
        ValueError: for K that is not a whole number from 1 on, a scale that is none, another source, or `votes` without
            any.

    Warns:
        UserWarning: where strengths are beyond K.
    """
    check_counts(1, num_levels=num_levels)
    if not is_number(scale):
        raise ValueError(f"scale={scale!r}; give a number, 1 for the strengths as they are")
    if source not in ("mean", "votes", "quantile"):
        raise ValueError(f"source={source!r}: levels are of 'mean', 'votes' or 'quantile'")
    if source == "votes":
        level = np.rint((2 * _share(strength) - 1) * num_levels)
    elif source == "mean":
        level = np.rint(scale * strength.mean)
        if beyond := int((np.abs(level) > num_levels).sum()):
            warnings.warn(
                f"levels: {beyond:,} of {len(level):,} strengths are beyond level {num_levels} and count as it; "
                "num_levels= more levels, or a smaller scale=, tells them apart",
                stacklevel=2,
            )
        level = np.clip(level, -num_levels, num_levels)
    else:
        rank = quantiles(np.abs(strength.mean)) * num_levels + 1e-9  # 3/11 * 55 is 14.999999999999998
        level = np.sign(strength.mean) * (np.floor(rank) + 1)
    return replace(targets, level=np.where(np.isnan(strength.mean), targets.level, targets.strength_sign * level))


def weight(
    strength: Strength,
    targets: Targets,
    *,
    floor: float = 0.1,
    clip: float | None = None,
    of_level: Sequence[float] | None = None,
) -> Targets:
    """Weigh a pair by how strongly the voters back its label: scaled Bradley-Terry (arXiv 2410.01257, section 3.2).

    A weight is the strength on the label's side, at least `floor`, divided by the mean weight of the pairs that are
    kept, so that the loss keeps its scale: put `select` and `drop` before it.

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        floor: the least weight before the division; pairs whose label the voters contradict get it.
        clip: the largest weight before the division; None for no bound.
        of_level: the weights of the strengths 1, 2, ... in place of these, between them by a straight line: the
            magnitudes slightly better, better and much better weigh `[1, 3, 10]` in INF-ORM-Llama3.1-70B.

    Raises:
        ValueError: if floor is not above 0, clip is below it, or `of_level` has no weights, or one that is not above 0.

    Warns:
        UserWarning: where strengths are beyond those of `of_level`.
    """
    bounds = [floor] if clip is None else [floor, clip]
    if not all(map(is_positive, bounds)) or floor > bounds[-1]:
        raise ValueError(f"floor={floor} and clip={clip}: give 0 < floor <= clip, or drop the pairs that get no weight")
    backing = np.where(targets.label < 0.5, -strength.mean, strength.mean)
    if of_level is not None:
        if not of_level or not all(map(is_positive, of_level)):
            raise ValueError(f"of_level={list(of_level)}: give the weight of each strength, 1, 2, ..., as [1, 3, 10]")
        if beyond := int((backing > len(of_level)).sum()):
            warnings.warn(
                f"weight: {beyond:,} of {len(backing):,} strengths are beyond the {len(of_level)} of of_level= and "
                "weigh as its last",
                stacklevel=2,
            )
        known_levels = [0.0, *(float(level + 1) for level in range(len(of_level)))]
        backing = np.interp(backing, known_levels, [0.0, *map(float, of_level)])
    scale = np.clip(backing, floor, clip)
    known = targets.kept & ~np.isnan(scale)
    scale = scale / scale[known].mean() if known.any() else scale
    return replace(targets, weight=np.where(np.isnan(scale), 1.0, scale) * targets.weight)


def noise_corrected(
    strength: Strength, targets: Targets, *, error: float | Literal["votes"] = "votes", max_error: float = 0.4
) -> Targets:
    """Return the unbiased loss under label noise: `((1 - e) l(z) - e l(-z)) / (1 - 2 e)` (Natarajan et al., 2013;
    rDPO).

    l is the ranking loss, e the probability that the label is wrong. With the label y it is the ranking loss against
    `(y - e) / (1 - 2 e)`, which is 1 for y = 1 and e = 0, and above 1 for y = 1 and e > 0.

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        error: e of every pair, or `votes` for the share of each pair's votes that contradict its label.
        max_error: the largest e; the loss has no bound as e comes near 1/2. Pairs that most voters contradict are for
            `flip` or `drop`.

    Raises:
        ValueError: if an error rate is not within [0, 1/2), or the data has no votes to take it from.
    """
    if not 0 <= max_error < 0.5 or (error != "votes" and not 0 <= error < 0.5):
        raise ValueError(f"error={error}, max_error={max_error}: error rates must be at least 0 and below 0.5")
    if error == "votes":
        share = _share(strength)
        rate = np.minimum(np.where(targets.label < 0.5, share, 1 - share), max_error)
        rate = np.where(np.isnan(rate), 0.0, rate)
    else:
        rate = np.full(len(strength), float(error))
    return replace(targets, label=(targets.label - rate) / (1 - 2 * rate))


def _mask(strength: Strength, pairs: Pairs) -> Bools:
    """Return (N,), which pairs a treatment is for; never one without strength, unless it is for all."""
    if pairs == "all":
        return np.ones(len(strength), bool)
    if pairs == "negative":
        return strength.mean < 0
    if isinstance(pairs, str):
        raise ValueError(f"pairs={pairs!r}; it must be all, negative, or a range of quantiles such as [0.9, 1.0]")
    return in_ranges(strength.quantile, [pairs])


def _share(strength: Strength) -> Floats:
    """Return the share of votes, where there are any.

    Raises:
        ValueError: if pairs have a mean and no votes.
    """
    if (np.isnan(strength.share) & ~np.isnan(strength.mean)).any():
        raise ValueError("the data has strength_mean and no votes; annotate it, or use what needs the mean alone")
    return strength.share


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.exp(-np.logaddexp(0.0, -x))
