"""The loader of streamed pairs, which a trainer reads, and which goes on in the middle of an epoch.

It knows the marks of readers and a `DataLoader`; not how pairs are read, nor a trainer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.batches.share import Share, scale_of, step_around
from lightning_rm.data.batches.shipping import ship
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.streaming import Mark, StreamedPairs
from lightning_rm.workers import follow_parent

REMEMBERED = 8
"""Batches that a trainer may have taken and not trained on."""


class StreamLoader:
    """The loader of streamed pairs: remembers where every reader stands after each batch.

    Args:
        pairs: of one rank.
        share: of the rank; its span's end is where the trainer stops.

    Attributes:
        report: what became of the rows that this rank has tokenised.
    """

    def __init__(self, pairs: StreamedPairs, share: Share | None = None) -> None:
        self.pairs = pairs
        self.share = share or Share()
        self.report = DataReport("train")
        self._given = deque[tuple[int, Mark]]()  # what the trainer has or may not have trained on
        self._next = 0  # the batch of the epoch that the next iteration begins with

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[PreferenceBatch]:
        """Yield what is left of the epoch: a generator, so that nothing happens before the first one is asked for."""
        self._settle(len(self._given))
        first = self.pairs.done = self._next
        self._next = 0
        share, span = self.share, self.share.span
        stop = min(span()[1] if span else len(self), len(self))
        workers, pin = self.pairs.batching.num_workers, torch.cuda.is_available()
        loader: Any = DataLoader(
            self.pairs,
            batch_size=None,
            collate_fn=ship,
            worker_init_fn=follow_parent,
            num_workers=workers,
            generator=torch.Generator().manual_seed(self.pairs.batching.seed),
        )
        for place, shipped in zip(range(first, stop), loader, strict=False):
            self._given.append((shipped.reader, shipped.mark))
            self._settle(len(self._given) - REMEMBERED)
            if shipped.report is not None:
                self.report.add(shipped.report)
            num_pairs = shipped.batch.num_pairs  # as many as any other batch has, on every rank
            in_step = num_pairs * share.world_size * len(step_around(place, share.accumulate, stop))
            scale = scale_of(num_pairs, in_step, share.world_size, share.accumulate)
            batch = replace(shipped.batch, scale=scale)
            yield batch.pin_memory() if pin else batch

    def position(self, num_trained: int) -> list[list[int]]:
        """Return where every reader stands when so many batches of the epoch are trained on, as plain numbers."""
        marks = list(self.pairs.marks)
        num_given = len(self._given)
        if num_trained or self.pairs.done + num_given < len(self):  # else the epoch is over, and the next has not begun
            num_given = max(num_trained - self.pairs.done, 0)
        for reader, mark in islice(self._given, num_given):
            marks[reader] = mark
        return [list(asdict(mark).values()) for mark in marks]

    def go_on(self, position: Sequence[Sequence[int]], num_trained: int) -> None:
        """Stand where readers stood, with so many batches of the epoch trained on."""
        self.pairs.marks = [Mark(*numbers) for numbers in position]
        self._next = num_trained
        self._given.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state; having one tells Lightning that training can go on in the middle of an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the data module keeps positions, which are of all ranks."""

    def _settle(self, num_batches: int) -> None:
        """Take the first batches that are remembered for trained on."""
        for _ in range(num_batches):
            reader, mark = self._given.popleft()
            self.pairs.marks[reader] = mark
            self.pairs.done += 1
