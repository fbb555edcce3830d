"""One sweep in a folder at a time: a second one would take away the words and the runs of the first.

The lock is the system's, so that a sweep that was killed leaves none; file systems without locks have none. It knows a
folder; no command.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".sweep.lock"
"""The file in a sweep's folder that is locked as long as its launching process works there; it stays."""

WAIT_SECONDS = 10.0
"""Processes that a killed sweep has started end some seconds after it, and hold its lock as long."""

_held: list[FileLock] = []


def work_alone(folder: Path) -> None:
    """Take a sweep's folder for this process, until the end of `released`.

    Raises:
        SystemExit: with 1, after a sentence, if another sweep works there: Hydra makes a warning of any other exception
            where it calls this.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        print(
            f"error: another sweep is at work in {folder}; wait until it has ended, or name another folder with "
            "hydra.sweep.dir=",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except OSError:  # a file system without locks
        return
    _held.append(lock)


@contextmanager
def released() -> Generator[None]:
    """Give back at the end of a block what `work_alone` has taken within it."""
    try:
        yield
    finally:
        while _held:
            _held.pop().release()
