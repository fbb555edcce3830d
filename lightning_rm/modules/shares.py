"""Whether batches were made for the trainer that reads them: a data module makes them for the trainer it is handed to.

Its loaders, handed over in its place, are those of one process, of single micro-batches, from the beginning of the
epoch. It knows loaders by a protocol, and asks of the trainer what a data module does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import lightning as L

from lightning_rm.counts import number_of
from lightning_rm.data.trainer import share_of


class Part(Protocol):
    """Of how many processes, and of how many micro-batches a step, batches are a part; their order, and where they
    begin.
    """

    @property
    def world_size(self) -> int:
        """The number of processes."""
        ...

    @property
    def accumulate(self) -> int:
        """Micro-batches of an optimizer step."""
        ...

    @property
    def shuffle(self) -> bool:
        """Whether each epoch has an order of its own."""
        ...

    @property
    def span(self) -> object | None:
        """Tells the place in the epoch; None for all of it."""
        ...


@runtime_checkable
class KnowsShare(Protocol):
    """A loader that knows which part of an epoch it reads, as those of `PreferenceDataModule` do."""

    @property
    def share(self) -> Part:
        """Which part it is."""
        ...


def check_training_share(trainer: L.Trainer) -> None:
    """Check that training batches are those of this trainer's processes, steps and place in the epoch.

    Raises:
        ValueError: if they are not.
    """
    loader = trainer.train_dataloader
    if _has_datamodule(trainer) or not isinstance(loader, KnowsShare):
        return
    share, read = loader.share, share_of(trainer)
    if (share.world_size, share.accumulate) != (read.world_size, read.accumulate):
        raise ValueError(
            f"these training batches are for {number_of(share.world_size, 'device')} and accumulate_grad_batches="
            f"{share.accumulate}, and the trainer has {read.world_size} and {read.accumulate}: {_way_out('fit')}"
        )
    if share.shuffle and not read.shuffle:
        raise ValueError(
            "overfit_batches is for the same batches in every epoch, and these training batches are shuffled: "
            f"{_way_out('fit')}"
        )
    if share.span is None and 0 <= trainer.fit_loop.batch_idx < trainer.num_training_batches - 1:
        raise ValueError(
            "these training batches begin with the epoch, and the checkpoint is in the middle of one: "
            f"{_way_out('fit')}"
        )


def check_evaluation_share(trainer: L.Trainer, loaders: object, verb: str) -> None:
    """Check that batches of an evaluation are those of this trainer's processes.

    Args:
        trainer: that evaluates.
        loaders: one, or a list of them.
        verb: the trainer's method.

    Raises:
        ValueError: if every process would read all of them.
    """
    if _has_datamodule(trainer):
        return
    devices = share_of(trainer).world_size
    for loader in cast("Sequence[object]", loaders) if isinstance(loaders, Sequence) else [loaders]:
        if isinstance(loader, KnowsShare) and loader.share.world_size != devices:
            raise ValueError(
                f"these batches are for {number_of(loader.share.world_size, 'device')}, and the trainer has "
                f"{devices}: {_way_out(verb)}"
            )


def _has_datamodule(trainer: L.Trainer) -> bool:
    """Tell whether batches are a data module's, which has asked the trainer."""
    return getattr(trainer, "datamodule", None) is not None


def _way_out(verb: str) -> str:
    return f"hand it the data module in the place of its loaders, trainer.{verb}(module, datamodule=...)"
