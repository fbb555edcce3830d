from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from lightning_rm.data.batches.shipping import ship
from lightning_rm.data.tokenize.processes import mapped
from lightning_rm.workers import follow_parent

MORE_THAN_A_PIPE_HOLDS = 1 << 20


class Batches(IterableDataset[bytes]):
    """Batches without end, that each say which process made them, and are too large to be left in a pipe."""

    def __init__(self, writing: int) -> None:
        self.writing = writing

    def __iter__(self) -> Iterator[bytes]:
        while True:
            os.write(self.writing, b"%d " % os.getpid())
            yield bytes(MORE_THAN_A_PIPE_HOLDS)


def load(writing: int) -> None:
    """Take one batch of two workers, and no other."""
    loader: Any = DataLoader(
        Batches(writing), batch_size=None, num_workers=2, collate_fn=ship, worker_init_fn=follow_parent
    )
    batches = iter(loader)
    next(batches)
    signal.pause()


def tokenise(writing: int) -> None:
    """Work on the items of a source that waits."""

    def items() -> Iterator[int]:
        yield from range(8)
        signal.pause()

    def work(item: int) -> int:
        os.write(writing, b"%d " % os.getpid())
        return item

    list(mapped(work, items(), 2))


@pytest.mark.parametrize("work", [load, tokenise])
def test_workers_end_with_the_process_that_started_them(work: Any) -> None:
    """A kill tells them nothing. All hold the pipe's writing end, which has ended when none is left."""
    reading, writing = os.pipe()
    parent = multiprocessing.get_context("fork").Process(target=work, args=(writing,))
    parent.start()
    os.close(writing)
    said = b""
    while not {int(word) for word in said.split()[:-1]} - {parent.pid}:
        said += os.read(reading, 64)
    os.kill(parent.pid or 0, signal.SIGKILL)
    parent.join()
    while chunk := os.read(reading, 64):
        said += chunk
    os.close(reading)
    assert len({*said.split()} - {b"%d" % (parent.pid or 0)}) in (1, 2)
