"""Where a Lightning trainer stands, in what a data module asks of it: its rank, its step, its place in the epoch.

It knows a trainer; no pairs and no loader. Without a trainer a data module reads all pairs, in one process.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import lightning as L
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn

from lightning_rm.data.batches.share import Share
from lightning_rm.data.position import Position, Settings

T = TypeVar("T")


def is_fitting(trainer: L.Trainer | None) -> bool:
    """Tell whether a trainer is fitting: then what it saves and loads is a position in the training pairs."""
    return trainer is not None and trainer.state.fn == TrainerFn.FITTING


def share_of(trainer: L.Trainer | None) -> Share:
    """Return what this process reads of an epoch, and from where on while a trainer trains."""
    if trainer is None:
        return Share()
    place = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    every: Any = trainer  # `overfit_batches` is set, not declared
    return Share(
        place["rank"],
        place["num_replicas"],
        trainer.accumulate_grad_batches,
        shuffle=not every.overfit_batches,  # Lightning is to overfit the first batches
        span=partial(_span_of, trainer) if trainer.training else None,
    )


def position_of(trainer: L.Trainer, settings: Settings) -> Position:
    """Return the trainer's position in the epoch, and the settings that say what it means."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # declared as its base class
    return {"settings": dict(settings), "place": progress.processed, "num_batches": trainer.num_training_batches}


def of_all_ranks(value: T) -> list[T]:
    """Return what each rank has, by rank: every rank asks at the same time."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def _span_of(trainer: L.Trainer) -> tuple[int, int]:
    """Return the next micro-batch of this epoch, as the trainer counts it, and the one that it stops before."""
    return trainer.fit_loop.batch_idx + 1, int(trainer.num_training_batches)
