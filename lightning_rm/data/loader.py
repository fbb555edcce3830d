"""From micro-batches of row numbers to batches in memory, in worker processes where there are any.

The position in an epoch and the seed of its order are the sampler's; this file knows neither a tokenizer nor a trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_rm.batch import PreferenceBatch, ReadAt, ResponseBatch
from lightning_rm.data.dataset import PairDataset
from lightning_rm.data.group_dataset import GroupDataset
from lightning_rm.data.group_stream import GroupStream
from lightning_rm.data.layouts import Layout
from lightning_rm.data.sampler import MicroBatch, PairBatchSampler
from lightning_rm.data.shipping import ship

BatchT = TypeVar("BatchT", PreferenceBatch, ResponseBatch)


class PairBatches(Dataset[PreferenceBatch]):
    """The pairs of a data set, read a micro-batch at a time: collation is part of the data set.

    Args:
        pairs: N tokenised pairs.
        name: the data set's name, which its batches carry.
        layout: lays token sequences on a grid.
        read_at: the token that rewards are read at.
        pad_id: fills the grid.
        responses: the groups of responses of a micro-step, for micro-batches that carry some.
    """

    def __init__(
        self,
        pairs: PairDataset,
        name: str,
        layout: Layout,
        read_at: ReadAt,
        pad_id: int,
        responses: Callable[[int], ResponseBatch] | None = None,
    ) -> None:
        self.pairs = pairs
        self.name = name
        self.layout = layout
        self.read_at: ReadAt = read_at
        self.pad_id = pad_id
        self.responses = responses

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, micro_batch: MicroBatch) -> PreferenceBatch:
        """The batch of a whole micro-batch; torch calls this with whatever a batch sampler yields."""
        read, steps = self.responses, micro_batch.response_steps
        samples = [self.pairs.sample(row) for row in micro_batch.rows]
        return PreferenceBatch(
            tokens=self.layout(samples, self.read_at, self.pad_id),
            valid=torch.tensor(micro_batch.valid),
            subset_names=self.pairs.subset_names,
            data_set=self.name,
            scale=micro_batch.scale,
            responses=tuple(read(step) for step in steps) if read else (),
            **self.pairs.columns(micro_batch.rows),
        )


@dataclass(frozen=True)
class GroupBatches(Dataset[ResponseBatch]):
    """The groups of responses of a data set, read a micro-batch at a time, as `PairBatches` reads pairs.

    Args:
        groups: N tokenised groups.
        layout: lays token sequences on a grid.
        read_at: the token that rewards are read at.
        pad_id: fills the grid.
    """

    groups: GroupDataset
    layout: Layout
    read_at: ReadAt
    pad_id: int

    def __len__(self) -> int:
        return len(self.groups)

    def __getitems__(self, micro_batch: MicroBatch) -> ResponseBatch:
        """The batch of a whole micro-batch; torch calls this with whatever a batch sampler yields."""
        return self.of(micro_batch.rows, micro_batch.valid)

    def of(self, rows: Sequence[int], valid: Sequence[bool] | None = None) -> ResponseBatch:
        """The groups `rows` in a batch; `valid` is False for fillers."""
        return self.groups.batch(rows, self.layout, self.read_at, self.pad_id, valid)


@dataclass(frozen=True)
class StreamedGroups:
    """From a micro-step to its groups of responses.

    Args:
        batches: where groups are read.
        stream: which groups a micro-step has.
    """

    batches: GroupBatches
    stream: GroupStream

    def __call__(self, micro_step: int) -> ResponseBatch:
        """The groups of a micro-step, which is counted from the start of the run."""
        return self.batches.of(self.stream.rows(micro_step))


class BatchLoader(DataLoader[BatchT]):
    """A `DataLoader` over the batches of a sampler.

    An iteration begins, and asks the sampler for its epoch and position, when its first batch is asked for: a trainer
    calls `iter` long before it has read the checkpoint that it goes on from. Torch's global random numbers are left
    alone, so that dropout does not depend on when an iteration begins.

    Args:
        batches: what to read.
        sampler: in which order.
        num_workers: worker processes; 0 reads in this one.
    """

    def __init__(self, batches: Dataset[BatchT], sampler: PairBatchSampler, num_workers: int = 0) -> None:
        micro_batches: Any = sampler  # torch declares lists of indices and takes anything
        super().__init__(
            batches,
            batch_sampler=micro_batches,
            collate_fn=ship,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(sampler.seed),
        )

    def __iter__(self) -> Any:
        """A generator, so that nothing happens before the first batch is asked for."""
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Empty: that it has one tells Lightning that training can go on in the middle of an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to do: the sampler asks the trainer for its position."""


PairLoader = BatchLoader[PreferenceBatch]
ResponseLoader = BatchLoader[ResponseBatch]
