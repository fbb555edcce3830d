"""Targets: what pairs are trained towards, and how treatments chain.

Everything is told of `chosen` and `rejected` as the data names them. A flipped pair keeps its names and gets the label
0: with the strength m and the logit `z = r(chosen) - r(rejected) - m`, training it as (rejected, chosen) with the
negated strength -m has the logit -z and the label 1, which is the same loss. So a flip leaves the margin as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from lightning_rm.strength.votes import Bools, Floats, Strength


@dataclass(frozen=True)
class Targets:
    """What N pairs are trained towards.

    Args:
        label: (N,) probability that chosen is preferred. `noise_corrected` takes it beyond [0, 1].
        margin: (N,) target margin, of chosen over rejected.
        weight: (N,) weight of each pair in the mean.
        level: (N,) how far chosen is preferred on a scale of whole numbers from -K to K, NaN where nobody said.
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
    level: Floats

    @classmethod
    def plain(cls, num_pairs: int) -> Targets:
        """Return the baseline's targets: label 1, margin 0, weight 1."""
        return cls.of(np.ones(num_pairs), np.zeros(num_pairs), np.ones(num_pairs))

    @classmethod
    def of(cls, label: ArrayLike, margin: ArrayLike, weight: ArrayLike) -> Targets:
        """Return the targets that a data set brings, nothing flipped and nothing left out."""
        label, margin, weight = (np.array(values, np.float64) for values in (label, margin, weight))
        num_pairs = len(label)
        return cls(
            label,
            margin,
            weight,
            flipped=np.zeros(num_pairs, bool),
            kept=np.ones(num_pairs, bool),
            strength_sign=np.ones(num_pairs, np.float64),
            level=np.full(num_pairs, np.nan),
        )


Target = Literal["label", "soft label", "margin", "weight", "level"]
"""A part of what a pair is trained towards. A label has two: the side that it takes, and how sure it is of it."""


def turned_round(targets: Targets, where: Bools) -> Targets:
    """Return the targets with some labels turned round, `1 - label`; all else stays as it is, margins too."""
    return replace(targets, label=np.where(where, 1 - targets.label, targets.label), flipped=targets.flipped ^ where)


def told(targets: Targets) -> dict[Target, Bools]:
    """Tell for which pairs (N,) each target says more than the label 1 or 1/2, the margin 0 or the weight 1.

    A pair of the label 0.2 and the weight 1 has a label, for its side is not that of its names, and a soft label.
    """
    label = targets.label
    return {
        "label": label < 0.5,
        "soft label": ~np.isin(label, (0.0, 0.5, 1.0)),
        "margin": targets.margin != 0,
        "weight": targets.weight != 1,
        "level": ~np.isnan(targets.level),
    }


def changed(before: Targets, after: Targets) -> list[Target]:
    """Name the targets that a treatment has made other than they were, of pairs that it keeps."""
    kept = after.kept
    fields: dict[Target, tuple[Floats, Floats]] = {
        "label": (np.sign(before.label - 0.5), np.sign(after.label - 0.5)),
        "soft label": (_sureness(before.label), _sureness(after.label)),
        "margin": (before.margin, after.margin),
        "weight": (before.weight, after.weight),
        "level": (before.level, after.level),
    }
    return [name for name, (one, other) in fields.items() if not np.array_equal(one[kept], other[kept], equal_nan=True)]


def _sureness(label: Floats) -> Floats:
    """Return the distance from 1/2, equal for a label and the same label turned round, in spite of rounding."""
    return np.abs(label - 0.5).round(12)


Treatment = Callable[[Strength, Targets], Targets]
"""From strength and targets to targets: a function below with its options fixed, `partial(flip, below_quantile=0.1)`.

Pairs without strength (NaN) are left as they are, except by treatments for all pairs or of one rate. A strength is of
chosen over rejected: what chooses pairs by it, `flip` and `pairs="negative"`, takes their labels to prefer chosen.
"""


@runtime_checkable
class ById(Protocol):
    """What becomes a treatment once it is told the names of the pairs, such as what people have said of some."""

    def of(self, ids: Sequence[str]) -> Treatment:
        """Return the treatment of pairs of these names, in their order."""
        ...


def treat(strength: Strength, targets: Targets, treatments: Iterable[Treatment]) -> Targets:
    """Return the targets after every treatment in turn."""
    for treatment in treatments:
        targets = treatment(strength, targets)
    return targets
