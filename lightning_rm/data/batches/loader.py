"""From micro-batches of row numbers to batches in memory, in worker processes where there are any.

The position in an epoch and the seed of its order are the sampler's; this file knows neither a tokenizer nor a trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from lightning_rm.batch import GroupBatch, PreferenceBatch
from lightning_rm.data.batches.layouts import Layout
from lightning_rm.data.batches.sampler import MicroBatch, PairBatchSampler
from lightning_rm.data.batches.share import Share
from lightning_rm.data.batches.shipping import ship
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.losses.lists import list_shares
from lightning_rm.tokens import ReadAt
from lightning_rm.workers import follow_parent

BatchT = TypeVar("BatchT", PreferenceBatch, GroupBatch)


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
        responses: Callable[[int], GroupBatch] | None = None,
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
        """Return the batch of a whole micro-batch; torch calls this with whatever a batch sampler yields.

        Where rows are lists of scored responses, the batch holds all pairs of each, every response computed once. A
        list counts as one pair does: in the mean over P pairs of G lists, each of its n pairs has the weight
        P / (G n), which is InstructGPT's 1 / (k (k - 1) / 2) each (arXiv 2203.02155, eq 1).
        """
        read, steps = self.responses, micro_batch.response_steps
        rows = self.pairs.pairs_of(micro_batch.rows).tolist() if self.pairs.has_lists else list(micro_batch.rows)
        samples = [self.pairs.sample(row) for row in rows]
        columns = self.pairs.columns(rows)
        if self.pairs.has_lists:
            shares = list_shares(columns["group"])
            columns["weight"] = columns["weight"] * shares.to(columns["weight"].dtype)
        return PreferenceBatch(
            tokens=self.layout(samples, self.read_at, self.pad_id),
            valid=torch.tensor(micro_batch.valid)[columns["group"]],
            subset_names=self.pairs.subset_names,
            attributes=self.pairs.attributes,
            data_set=self.name,
            scale=micro_batch.scale,
            text_share=micro_batch.text_share,
            responses=tuple(read(step) for step in steps) if read else (),
            **columns,
        )


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
            worker_init_fn=follow_parent,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(sampler.seed),
        )

    def __iter__(self) -> Any:
        """Yield the batches: a generator, so that nothing happens before the first one is asked for."""
        yield from super().__iter__()

    @property
    def share(self) -> Share:
        """Which part of an epoch it reads."""
        sampler = cast(PairBatchSampler, self.batch_sampler)  # torch declares lists of indices
        return Share(sampler.rank, sampler.world_size, sampler.accumulate, sampler.shuffle, sampler.span)

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state; having one tells Lightning that training can go on in the middle of an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the sampler asks the trainer for its position."""


class Iterated(Generic[BatchT]):
    """The batches of a loader, hidden from code that would rebuild a torch loader, as Lightning does to predict.

    Args:
        loader: gives the batches.
    """

    def __init__(self, loader: BatchLoader[BatchT]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[BatchT]:
        return iter(self.loader)


PairLoader = BatchLoader[PreferenceBatch]
GroupLoader = BatchLoader[GroupBatch]
ResponseLoader = GroupLoader
"""The former name of the same class."""
