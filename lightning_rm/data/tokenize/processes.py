"""One function over many items, in processes of their own, its results in the order of the items.

Templates and most of a tokenizer's work hold Python's lock, so that threads would wait for one another. The processes
are forks: they have the tokenizer without a copy being sent, and a script needs no `if __name__ == "__main__"`. It
knows neither rows nor tokens, but for the setting that its error names.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from lightning_rm.workers import follow_parent

T = TypeVar("T")
R = TypeVar("R")

FEW = 4
"""Items that are worked on before processes are worth starting."""

AHEAD = 2
"""Items for each process that are in memory at a time, waiting or done."""


def num_cores() -> int:
    """Return the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def mapped(work: Callable[[T], R], items: Iterable[T], num_processes: int) -> Iterator[R]:
    """Yield what `work` makes of every item, in order.

    The first few items are worked on here. Where there is one process, where processes cannot be forked (macOS,
    Windows), or in a process that may have no children, all are.

    Args:
        work: a function that needs nothing but its item; what it returns is sent back as a pickle.
        items: read in this process, no more than `AHEAD` a process before their results are taken.
        num_processes: beside this one, which reads the items and takes the results.

    Raises:
        ChildProcessError: if a process was killed; whatever `work` raises.
    """
    left = iter(items)
    yield from map(work, islice(left, FEW))
    if num_processes < 2 or sys.platform != "linux" or multiprocessing.current_process().daemon:
        yield from map(work, left)
        return
    if (item := next(left, None)) is None:
        return
    with ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_begin,
        initargs=(work,),
    ) as pool:
        pending = deque[Future[R]]()
        try:
            with _quiet_forks():
                pending.append(pool.submit(_work, item))
            for item in left:
                pending.append(pool.submit(_work, item))
                if len(pending) > AHEAD * num_processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of {num_processes} processes that tokenise was killed, most likely for want of memory; start "
                "again with fewer of them, data.prepare_processes=1"
            ) from error
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def _quiet_forks() -> Generator[None]:
    """Fork without the warnings of Python and of tokenizers that threads do not come along: nothing here needs them."""
    known = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = known or "false"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        if known is None:
            del os.environ["TOKENIZERS_PARALLELISM"]


_given: list[Callable[[Any], Any]] = []
"""What this process was forked for."""


def _begin(work: Callable[[Any], Any]) -> None:
    """Set up a process, which has a core of its own."""
    _given[:] = [work]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    follow_parent()


def _work(item: Any) -> Any:
    return _given[0](item)
