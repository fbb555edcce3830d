"""What a module needs of its surroundings, checked before anything is read or trained.

It knows what it asks for by a protocol; no data module, no model and no files.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateFinder
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel

from lightning_rm.batch import GroupBatch, PreferenceBatch
from lightning_rm.strength import Strength, Target, Targets, told
from lightning_rm.tokens import ReadAt

PRECISIONS = ("bf16-mixed", "32-true", "16-mixed")
"""What a trainer may be told; the type of the backbone's weights is the model's."""

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


def check_pieces(model: object, optimizer: object, scheduler: object) -> None:
    """Check what a module is made of: a reward model, not a name or a model of transformers, and functions that make an
    optimizer and a schedule, not those that are made already.

    Raises:
        ValueError: if a piece is of another kind.
    """
    if not isinstance(model, nn.Module) or isinstance(model, PreTrainedModel):
        given = repr(model) if isinstance(model, str) else "PATH"
        raise ValueError(
            f"model is of the type {type(model).__name__}; give a reward model: "
            f"RewardModel.from_pretrained({given}, pad_id=tokenizer.pad_token_id)"
        )
    for name, piece, made, example in (
        ("optimizer", optimizer, Optimizer, "partial(torch.optim.AdamW, lr=1e-5)"),
        ("scheduler", scheduler, LRScheduler, 'partial(warmup_schedule, name="linear", warmup=0.1), or None'),
    ):
        if isinstance(piece, made) or not (callable(piece) or (piece is None and name == "scheduler")):
            raise ValueError(
                f"{name} is of the type {type(piece).__name__}; give a function that makes one when training begins: "
                f"{example}"
            )


def check_batch(batch: object) -> None:
    """Check what a loader hands over.

    Raises:
        ValueError: if it is not a batch of pairs or of groups.
    """
    if not isinstance(batch, PreferenceBatch | GroupBatch):
        raise ValueError(
            f"a loader gives batches of the type {type(batch).__name__}; take those of PreferenceDataModule, or make "
            "them with lightning_rm.batch: preference_batch(padded(samples, model.read_at, pad_id))"
        )


def check_trainer(precision: str | int, callbacks: Sequence[L.Callback]) -> None:
    """Check that a trainer leaves head, rewards and losses in float32, and the number of micro-batches of a step and
    the learning rate as they are.

    Raises:
        ValueError: if it does not.
    """
    if precision not in PRECISIONS:
        if not str(precision).startswith(("64", "bf16-true", "16-true", "transformer-engine")):
            raise ValueError(f"trainer.precision={precision} is not one; set {' or '.join(PRECISIONS)}")
        raise ValueError(
            f"trainer.precision={precision} takes everything to that type, and head, rewards and "
            f"losses stay in float32: set trainer.precision={' or '.join(PRECISIONS)}, and "
            "backbone.model.dtype=bfloat16 for weights that are kept in half precision"
        )
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ValueError(
            "GradientAccumulationScheduler changes how many micro-batches make a step, and an epoch is planned for "
            "one number: set the trainer's accumulate_grad_batches instead"
        )
    if any(isinstance(one, LearningRateFinder) and not one._early_exit for one in callbacks):  # pyright: ignore[reportPrivateUsage]  # a Tuner's ends its fit
        raise ValueError(
            "LearningRateFinder as a callback leaves a schedule with the rate of before: find one before training, by "
            "Tuner(trainer).lr_find(module, data), which sets module.lr"
        )


def check_reading(of_data: ReadAt, of_model: ReadAt) -> None:
    """Check that batches point at the token that the model is read at.

    Raises:
        ValueError: if they do not.
    """
    if of_data != of_model:
        raise ValueError(
            f"the data module reads rewards at the {of_data} token and this model at the "
            f"{of_model}: give PreferenceDataModule(..., reading=model.reading)"
        )


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
