"""From row numbers to batches of groups of responses, and from a micro-step of training to its groups.

It knows tokenised groups, a layout and a stream; no loader and no trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_rm.batch import GroupBatch
from lightning_rm.data.batches.group_stream import GroupStream
from lightning_rm.data.batches.layouts import Layout
from lightning_rm.data.batches.sampler import MicroBatch
from lightning_rm.data.store.groups import GroupDataset
from lightning_rm.tokens import ReadAt, Sample


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
        """Return groups in a batch, smaller ones filled up with their first response.

        Two responses are `agreed` where all voters rank them alike, strictly; so a response is not agreed with itself
        or its copies. In groups without votes all responses are agreed.

        Args:
            rows: G row numbers.
            valid: G flags, False for a filler; None takes all for valid.
        """
        samples = [self.groups.sample(row) for row in rows]
        k = max(len(sample.sequences) for sample in samples)
        places = [[place if place < len(sample.sequences) else 0 for place in range(k)] for sample in samples]
        filled = [
            Sample([sample.sequences[place] for place in taken], sample.prompt_length)
            for sample, taken in zip(samples, places, strict=True)
        ]
        sizes = torch.tensor([len(sample.sequences) for sample in samples])
        gold = [_gold(self.groups.gold(row), taken) for row, taken in zip(rows, places, strict=True)]
        agreed = [_agreed(self.groups.votes(row), taken) for row, taken in zip(rows, places, strict=True)]
        return GroupBatch(
            tokens=self.layout(filled, self.read_at, self.pad_id),
            present=torch.arange(k)[:, None] < sizes,
            gold=torch.stack(gold, dim=1),
            agreed=torch.stack(agreed, dim=2),
            row=torch.tensor(rows, dtype=torch.long),
            valid=torch.ones(len(rows), dtype=torch.bool) if valid is None else torch.tensor(valid),
            data_set=self.groups.name,
        )


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
