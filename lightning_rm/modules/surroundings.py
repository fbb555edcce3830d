"""What a module needs of its surroundings: pieces of the right kind, a trainer, and batches for its model.

It knows Lightning's classes and batches; no pairs, no method and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateFinder
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_rm.batch import GroupBatch, PreferenceBatch
from lightning_rm.tokens import ReadAt

PRECISIONS = ("bf16-mixed", "32-true", "16-mixed")
"""What a trainer may be told; the type of the backbone's weights is the model's."""


def check_pieces(model: object, optimizer: object, scheduler: object) -> None:
    """Check what a module is made of: a reward model, not a name or a model of transformers, and functions that make an
    optimizer and a schedule, not those that are made already.

    Raises:
        ValueError: if a piece is of another kind.
    """
    # A compiled model has what it was compiled from, and a model of peft's is no PreTrainedModel.
    if not isinstance(model, nn.Module) or not hasattr(model, "head_parameters"):
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
