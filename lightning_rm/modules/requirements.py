"""What a method needs of the pairs that it trains on: their targets, their strengths, two responses and their number.

It knows pairs, and whoever hands them out, by protocols; no data module, no model and no trainer.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_rm.strength import Strength, Target, Targets, told
from lightning_rm.tokens import ReadAt

LABELS_AND_WEIGHTS: frozenset[Target] = frozenset({"label", "soft label", "weight"})
"""What a ranking loss without target margins reads of a pair."""

RANKING_TARGETS: frozenset[Target] = frozenset({*LABELS_AND_WEIGHTS, "margin"})
"""What a ranking loss with target margins reads."""

_READERS: dict[Target, str] = {
    "label": "module=strength_aware",
    "soft label": "module=strength_aware",
    "margin": "module=strength_aware",
    "weight": "a module that trains rewards",
    "level": "module=ordinal",
}


class TrainPairs(Protocol):
    """N training pairs, in what methods ask of them before training; `store.pairs.PairDataset` says more."""

    strength: Strength
    scores: NDArray[np.float64]
    """(2, N, A), NaN for gaps."""
    attributes: tuple[str, ...]
    single: NDArray[np.bool_]
    """(N,), for one response that stands for a pair."""
    num_tied: int
    """Rows of scored responses that are left out, for all of theirs have one score."""
    changed: Mapping[Target, Sequence[str]]
    """Which treatments have made which targets other than the data has them."""

    def targets(self) -> Targets:
        """Give what the pairs are trained towards."""
        ...

    @property
    def level(self) -> NDArray[np.float64]:
        """(N,), NaN where nobody said."""
        ...

    def __len__(self) -> int: ...


@runtime_checkable
class KnowsPairs(Protocol):
    """A data module that knows the pairs it hands out, as `PreferenceDataModule` does."""

    read_at: ReadAt
    """Which token of a sequence its batches point at."""

    def train_pairs(self) -> TrainPairs | None:
        """Give the training pairs; None before they are read."""
        ...

    def name_of_pair(self, row: int) -> str:
        """Name a training pair, by its place in the set."""
        ...


def check_two_responses(single: NDArray[np.bool_]) -> None:
    """Check that there are pairs (N,) of two responses, for a method that ranks; those of one are counted.

    Raises:
        ValueError: if there is none.
    """
    if not single.any():
        return
    alone = f"{int(single.sum()):,} of {len(single):,} training pairs are one response without another"
    if single.all():
        raise ValueError(f"{alone}, and there is nothing to rank: set module=regression, which trains on scores")
    warnings.warn(f"{alone}; there is nothing to rank them with, so that only other losses learn of them", stacklevel=2)


def check_targets(
    targets: Targets, changed: Mapping[Target, Sequence[str]], reads: frozenset[Target], reader: str
) -> None:
    """Check that a method reads the targets that treatments make, and say which of the data's it does not.

    Args:
        targets: of the training pairs.
        changed: target -> the treatments that made it.
        reads: what the method reads.
        reader: the method's name.

    Raises:
        ValueError: for a treatment's.

    Warns:
        UserWarning: for the data's own.
    """
    said = " and ".join(f"{target}s" for target in sorted(reads)) or "none"
    for target in _READERS.keys() - reads:
        if names := changed.get(target):
            raise ValueError(
                f"treatment={', '.join(names)} gives pairs a {target} of their own, and {reader} does not read it (it "
                f"reads {said}): leave the treatment out, or set {_READERS[target]}"
            )
        if number := int(told(targets)[target].sum()):
            warnings.warn(
                f"the data gives {number:,} pairs a {target} of their own, and {reader} does not read it (it reads "
                f"{said}); data.columns={{{target.split()[-1]}: null}} leaves the column out",
                stacklevel=2,
            )


def check_weighed(targets: Targets) -> None:
    """Check that a training pair has a weight.

    Raises:
        ValueError: if all have 0.
    """
    if len(targets.weight) and not targets.weight.any():
        raise ValueError(
            f"all {len(targets.weight):,} training pairs have the weight 0, and nothing would be learned: mend the "
            "weights, or leave their column out with data.columns={weight: null}"
        )


def check_together(wanted: int, num_pairs: int, reader: str) -> None:
    """Check that a micro-batch has as many pairs as a method looks at together.

    Args:
        wanted: pairs that it looks at.
        num_pairs: of the first micro-batch, over all ranks.
        reader: the method's name.

    Warns:
        UserWarning: if it has fewer.
    """
    if num_pairs < wanted:
        warnings.warn(
            f"{reader} looks at {wanted} pairs of a micro-batch together, and the first one has {num_pairs}: set "
            f"data.batch_pairs={wanted} or more; micro-batches whose gradients are accumulated are not put together",
            stacklevel=2,
        )


def check_strengths(strength: Tensor) -> None:
    """Check that every pair has a strength (N,), for a method that distils them or ranks by them.

    Raises:
        ValueError: if one is NaN.
    """
    if missing := int(strength.isnan().sum()):
        raise ValueError(
            f"the method needs a strength for every pair, and {missing} of {len(strength)} have none; annotate the "
            "data, or set what asks for them to distill=0 or group_size=1"
        )
