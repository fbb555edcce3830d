"""Preference strength: what M voters say of a pair, and treatments that make training targets of it.

A vote is one reward model's margin on a pair, strength the mean of the votes (arXiv 2401.06080, section 2.2). A
treatment is a pure function of strength and targets to targets; treatments chain. Arrays hold the N pairs of a whole
training set, since quantiles are of all of it. This file knows no file, no batch and no model.

Everything is told of `chosen` and `rejected` as the data names them. A flipped pair keeps its names and gets the label
0: with the strength m and the logit `z = r(chosen) - r(rejected) - m`, training it as (rejected, chosen) with the
negated strength -m has the logit -z and the label 1, which is the same loss. So a flip leaves the margin as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
QuantileRanges = Sequence[Sequence[float]]
"""Ranges `[low, high)` of quantiles: `[[0.0, 0.1], [0.2, 0.3]]` are the weakest decile and the third."""
Pairs = Literal["all", "negative"] | Sequence[float]
"""Which pairs a treatment is for: all, those of negative strength, or those of a quantile range `[low, high)`."""


@dataclass(frozen=True)
class Strength:
    """What the voters say of N pairs. Every field is (N,) float64, NaN for a pair that has no votes.

    Args:
        mean: mean of the votes, signed: below 0 the voters contradict the label (arXiv 2401.06080, eq 4).
        std: their population standard deviation (divided by M, not by M - 1).
        share: share of the votes above 0, a vote of exactly 0 counting half.
        quantile: rank of the mean among the pairs that have votes, `rank / N`, in [0, 1): 0 is the weakest.
    """

    mean: Floats
    std: Floats
    share: Floats
    quantile: Floats

    @classmethod
    def of(cls, mean: ArrayLike, std: ArrayLike, share: ArrayLike) -> Strength:
        """Strength from its numbers; the quantile is computed here."""
        mean = np.asarray(mean, np.float64)
        return cls(mean, np.asarray(std, np.float64), np.asarray(share, np.float64), quantiles(mean))

    @classmethod
    def of_votes(cls, votes: ArrayLike) -> Strength:
        """Strength from votes (arXiv 2401.06080, eq 4).

        Args:
            votes: (N, M) margins; NaN where a voter has no say, such as on a pair that it was trained on.
        """
        votes = np.asarray(votes, np.float64)
        has_say = ~np.isnan(votes)
        with np.errstate(invalid="ignore"):
            num_votes = has_say.sum(1)
            mean = np.where(has_say, votes, 0.0).sum(1) / num_votes
            std = np.sqrt(np.where(has_say, (votes - mean[:, None]) ** 2, 0.0).sum(1) / num_votes)
            share = np.where(has_say, 0.5 + 0.5 * np.sign(votes), 0.0).sum(1) / num_votes
        return cls.of(mean, std, share)

    def of_rows(self, rows: NDArray[np.int64]) -> Strength:
        """The strength of some of the pairs, their quantiles still those among all."""
        return Strength(self.mean[rows], self.std[rows], self.share[rows], self.quantile[rows])

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Targets:
    """What N pairs are trained towards.

    Args:
        label: (N,) probability that chosen is preferred. `noise_corrected` takes it beyond [0, 1].
        margin: (N,) target margin, of chosen over rejected.
        weight: (N,) weight of each pair in the mean.
        flipped: (N,) whether the label was turned round.
        kept: (N,) whether the pair is trained on at all.
        strength_sign: (N,) 1, or -1 for a flipped pair whose margin is to be kept when its responses change places.
    """

    label: Floats
    margin: Floats
    weight: Floats
    flipped: Bools
    kept: Bools
    strength_sign: Floats

    @classmethod
    def plain(cls, num_pairs: int) -> Targets:
        """The baseline's: label 1, margin 0, weight 1."""
        return cls.of(np.ones(num_pairs), np.zeros(num_pairs), np.ones(num_pairs))

    @classmethod
    def of(cls, label: ArrayLike, margin: ArrayLike, weight: ArrayLike) -> Targets:
        """The targets that a data set brings, nothing flipped and nothing left out."""
        label, margin, weight = (np.array(values, np.float64) for values in (label, margin, weight))
        num_pairs = len(label)
        return cls(
            label, margin, weight, np.zeros(num_pairs, bool), np.ones(num_pairs, bool), np.ones(num_pairs, np.float64)
        )


Treatment = Callable[[Strength, Targets], Targets]
"""From strength and targets to targets: a function below with its options fixed, `partial(flip, below_quantile=0.1)`.

Pairs without strength (NaN) are left as they are.
"""


def treat(strength: Strength, targets: Targets, treatments: Iterable[Treatment]) -> Targets:
    """The targets after every treatment in turn."""
    for treatment in treatments:
        targets = treatment(strength, targets)
    return targets


def quantiles(mean: ArrayLike) -> Floats:
    """(N,) the rank of each value among those that are not NaN, over their number: `rank / N`, in [0, 1).

    Equal values rank as they stand. NaN stays NaN.
    """
    mean = np.asarray(mean, np.float64)
    known = np.flatnonzero(~np.isnan(mean))
    quantile = np.full(len(mean), np.nan)
    quantile[known[np.argsort(mean[known], kind="stable")]] = np.arange(len(known)) / max(len(known), 1)
    return quantile


def in_ranges(quantile: Floats, ranges: QuantileRanges) -> Bools:
    """(N,) whether a quantile lies in one of the ranges `[low, high)`.

    Raises:
        ValueError: for a range that is empty or not within [0, 1].
    """
    inside = np.zeros(len(quantile), bool)
    for bounds in ranges:
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= 1:
            raise ValueError(f"{list(bounds)} is no range of quantiles [low, high) within [0, 1], such as [0.0, 0.1]")
        inside |= (quantile >= bounds[0]) & (quantile < bounds[1])
    return inside


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
        ValueError: if none or both bounds are given, or a quantile is not within [0, 1].
    """
    if (below_quantile is None) == (below_mean is None):
        raise ValueError(f"flip needs below_quantile or below_mean, one of them; got {below_quantile} and {below_mean}")
    if below_quantile is not None and not 0 <= below_quantile <= 1:
        raise ValueError(f"below_quantile={below_quantile} is no quantile; give a number from 0 to 1, 0.1 for a tenth")
    turned = strength.quantile < below_quantile if below_quantile is not None else strength.mean < (below_mean or 0.0)
    sign = np.where(turned & keep_margin, -1.0, 1.0)
    return replace(
        targets,
        label=np.where(turned, 1 - targets.label, targets.label),
        margin=sign * targets.margin,
        flipped=targets.flipped ^ turned,
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
        ValueError: if alpha is not within [0, 1/2], or `pairs` is none of its kinds.
    """
    if not 0 <= alpha <= 0.5:
        raise ValueError(f"alpha={alpha} is no label smoothing; give a number from 0 to 0.5")
    smoothed = (1 - alpha) * targets.label + alpha * (1 - targets.label)
    return replace(targets, label=np.where(_mask(strength, pairs), smoothed, targets.label))


def soft_label(
    strength: Strength, targets: Targets, *, source: Literal["mean", "votes"] = "mean", temperature: float = 1.0
) -> Targets:
    """Replace the label by what the voters believe: `sigmoid(mean / temperature)`, or the share of their votes.

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        source: `mean`, or `votes` for the share of votes for chosen.
        temperature: of the sigmoid; above 1 softens.

    Raises:
        ValueError: if the source is none of the two, the temperature not above 0, or the data has no votes to share.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; 1 takes the voters at their word")
    if source == "mean":
        believed = _sigmoid(strength.mean / temperature)
    elif source == "votes":
        believed = _needed(strength, strength.share)
    else:
        raise ValueError(f"source={source!r}; soft labels come from 'mean' or from 'votes'")
    return replace(targets, label=np.where(np.isnan(strength.mean), targets.label, believed))


def adaptive_margin(
    strength: Strength, targets: Targets, *, scale: float = 1.0, clip: float | None = None, clamp: bool = False
) -> Targets:
    """The strength of a pair is its target margin (arXiv 2401.06080, eq 6, with its bracket put right).

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        scale: times the strength.
        clip: the largest size of a margin; None for no bound.
        clamp: take margins that contradict the label for 0. The paper's are signed: its curves start where a negative
            margin makes the loss small.

    Raises:
        ValueError: if clip is not above 0.
    """
    if clip is not None and clip <= 0:
        raise ValueError(f"clip={clip} must be above 0; null for no bound")
    margin = scale * targets.strength_sign * strength.mean
    if clip is not None:
        margin = np.clip(margin, -clip, clip)
    if clamp:
        margin = np.where(targets.label < 0.5, np.minimum(margin, 0), np.maximum(margin, 0))
    return replace(targets, margin=np.where(np.isnan(strength.mean), targets.margin, margin))


def weight(strength: Strength, targets: Targets, *, floor: float = 0.1, clip: float | None = None) -> Targets:
    """Weigh a pair by how strongly the voters back its label: scaled Bradley-Terry (arXiv 2410.01257, section 3.2).

    A weight is the strength on the label's side, at least `floor`, divided by the mean weight of the pairs that are
    kept, so that the loss keeps its scale.

    Args:
        strength: of N pairs.
        targets: of the same pairs.
        floor: the least weight before the division; pairs whose label the voters contradict get it.
        clip: the largest weight before the division; None for no bound.

    Raises:
        ValueError: if floor is not above 0, or clip is below it.
    """
    if floor <= 0 or (clip is not None and clip < floor):
        raise ValueError(f"floor={floor} and clip={clip}: give 0 < floor <= clip, or drop the pairs that get no weight")
    backing = np.where(targets.label < 0.5, -strength.mean, strength.mean)
    scale = np.clip(backing, floor, clip)
    known = targets.kept & ~np.isnan(scale)
    scale = scale / scale[known].mean() if known.any() else scale
    return replace(targets, weight=np.where(np.isnan(scale), 1.0, scale) * targets.weight)


def noise_corrected(
    strength: Strength, targets: Targets, *, error: float | Literal["votes"] = "votes", max_error: float = 0.4
) -> Targets:
    """The unbiased loss under label noise: `((1 - e) l(z) - e l(-z)) / (1 - 2 e)` (Natarajan et al., 2013; rDPO).

    l is the ranking loss, e the probability that the label is wrong. With the label y it is the ranking loss against
    `(y - e) / (1 - 2 e)`, which is 1 for y = 1 and e = 0 and beyond it for e > 0.

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
        share = _needed(strength, strength.share)
        rate = np.minimum(np.where(targets.label < 0.5, share, 1 - share), max_error)
        rate = np.where(np.isnan(rate), 0.0, rate)
    else:
        rate = np.full(len(strength), float(error))
    return replace(targets, label=(targets.label - rate) / (1 - 2 * rate))


def select(strength: Strength, targets: Targets, *, ranges: QuantileRanges) -> Targets:
    """Train only on pairs of these quantile ranges; pairs without strength are left out too.

    Raises:
        ValueError: for a range that is empty or not within [0, 1].
    """
    return replace(targets, kept=targets.kept & in_ranges(strength.quantile, ranges))


def drop(strength: Strength, targets: Targets, *, ranges: QuantileRanges) -> Targets:
    """Train on all but the pairs of these quantile ranges.

    Raises:
        ValueError: for a range that is empty or not within [0, 1].
    """
    return replace(targets, kept=targets.kept & ~in_ranges(strength.quantile, ranges))


def decile(strength: Strength, targets: Targets, *, number: int) -> Targets:
    """Train only on one decile, from 0, the weakest, to 9 (arXiv 2401.06080, Fig 4).

    Raises:
        ValueError: for another number.
    """
    if number not in range(10):
        raise ValueError(f"number={number}: the deciles go from 0, the weakest, to 9, the strongest")
    return select(strength, targets, ranges=[(number / 10, (number + 1) / 10)])


def prefix(strength: Strength, targets: Targets, *, share: float, end: Literal["weak", "strong"] = "weak") -> Targets:
    """Train only on a share of the pairs, from the weak or from the strong end (arXiv 2401.06080, Figs 21 and 22).

    Raises:
        ValueError: if the share is not within (0, 1], or there is no such end.
    """
    if not 0 < share <= 1 or end not in ("weak", "strong"):
        raise ValueError(f"share={share}, end={end!r}: give a share above 0, 1 at most, of the weak or the strong end")
    return select(strength, targets, ranges=[(0, share) if end == "weak" else (1 - share, 1)])


def _mask(strength: Strength, pairs: Pairs) -> Bools:
    """(N,) which pairs a treatment is for; never one without strength, unless it is for all."""
    if pairs == "all":
        return np.ones(len(strength), bool)
    if pairs == "negative":
        return strength.mean < 0
    if isinstance(pairs, str):
        raise ValueError(f"pairs={pairs!r}; it must be all, negative, or a range of quantiles such as [0.9, 1.0]")
    return in_ranges(strength.quantile, [pairs])


def _needed(strength: Strength, share: Floats) -> Floats:
    """The share of votes, where there are any.

    Raises:
        ValueError: if pairs have a mean and no votes.
    """
    if (np.isnan(share) & ~np.isnan(strength.mean)).any():
        raise ValueError("the data has strength_mean and no votes; annotate it, or use what needs the mean alone")
    return share


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.exp(-np.logaddexp(0.0, -x))
