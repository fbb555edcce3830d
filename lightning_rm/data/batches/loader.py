"""From micro-batches of row numbers to batches in memory, in worker processes where there are any.

The position in an epoch and the seed of its order are the sampler's; this file knows neither a tokenizer nor a trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_rm.batch import GroupBatch, PreferenceBatch
from lightning_rm.data.batches.group_stream import GroupStream
from lightning_rm.data.batches.layouts import Layout
from lightning_rm.data.batches.sampler import MicroBatch, PairBatchSampler
from lightning_rm.data.batches.share import Share
from lightning_rm.data.batches.shipping import ship
from lightning_rm.data.store.groups import GroupDataset
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.losses.lists import list_shares
from lightning_rm.tokens import ReadAt, Sample
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


@dataclass(frozen=True)
class GroupBatches(Dataset[GroupBatch]):
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

    def __getitems__(self, micro_batch: MicroBatch) -> GroupBatch:
        """Return the batch of a whole micro-batch; torch calls this with whatever a batch sampler yields."""
        return self.of(micro_batch.rows, micro_batch.valid)

    def of(self, rows: Sequence[int], valid: Sequence[bool] | None = None) -> GroupBatch:
        """Return the groups `rows` in a batch; `valid` is False for fillers."""
        return group_batch(self.groups, rows, self.layout, self.read_at, self.pad_id, valid)


@dataclass(frozen=True)
class StreamedGroups:
    """A function from a micro-step to its groups of responses.

    Args:
        batches: where groups are read.
        stream: which groups a micro-step has.
    """

    batches: GroupBatches
    stream: GroupStream

    def __call__(self, micro_step: int) -> GroupBatch:
        """Return the groups of a micro-step, which is counted from the start of the run."""
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


def group_batch(
    groups: GroupDataset,
    rows: Sequence[int],
    layout: Layout,
    read_at: ReadAt,
    pad_id: int,
    valid: Sequence[bool] | None = None,
) -> GroupBatch:
    """Put the groups `rows` in a batch, smaller ones filled up with their first response.

    Two responses are `agreed` where all voters rank them alike, strictly; so a response is not agreed with itself
    or its copies. In groups without votes all responses are agreed.

    Args:
        groups: N tokenised groups.
        rows: G row numbers.
        layout: lays token sequences on a grid.
        read_at: the token that rewards are read at.
        pad_id: fills the grid.
        valid: G flags, False for a filler; None takes all for valid.
    """
    samples = [groups.sample(row) for row in rows]
    k = max(len(sample.sequences) for sample in samples)
    places = [[place if place < len(sample.sequences) else 0 for place in range(k)] for sample in samples]
    filled = [
        Sample([sample.sequences[place] for place in taken], sample.prompt_length)
        for sample, taken in zip(samples, places, strict=True)
    ]
    sizes = torch.tensor([len(sample.sequences) for sample in samples])
    return GroupBatch(
        tokens=layout(filled, read_at, pad_id),
        present=torch.arange(k)[:, None] < sizes,
        gold=torch.stack([_gold(groups.gold(row), taken) for row, taken in zip(rows, places, strict=True)], dim=1),
        agreed=torch.stack([_agreed(groups.votes(row), taken) for row, taken in zip(rows, places, strict=True)], dim=2),
        row=torch.tensor(rows, dtype=torch.long),
        valid=torch.ones(len(rows), dtype=torch.bool) if valid is None else torch.tensor(valid),
        data_set=groups.name,
    )


def _gold(gold: Sequence[float], places: Sequence[int]) -> Tensor:
    """Return (k,) float32, the gold rewards of the responses `places` of a group."""
    return torch.tensor([gold[place] for place in places]) if gold else torch.full((len(places),), float("nan"))


def _agreed(votes: Sequence[Sequence[float]], places: Sequence[int]) -> Tensor:
    """Return (k, k) bool, whether all voters rank two of the responses `places` of a group alike."""
    k = len(places)
    if not votes:
        return torch.ones(k, k, dtype=torch.bool)
    rewards = torch.tensor(votes, dtype=torch.float64)[list(places)]  # (k, M)
    differences = rewards[:, None] - rewards[None]
    return (differences > 0).all(-1) | (differences < 0).all(-1)
