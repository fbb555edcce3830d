"""One run, or one sweep, in a folder at a time: a second one would take away what the first has written.

The lock is the system's, so that a process that was killed leaves none; file systems without locks have none. It knows
folders; no command.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".sweep.lock"
"""The file in a sweep's folder that is locked as long as its launching process works there; it stays."""

RUN_LOCK = ".hydra/run.lock"
"""The same of a run, in what Hydra writes there."""

WAIT_SECONDS = 10.0
"""Processes that a killed one has started end some seconds after it, and hold its lock as long."""

_held: list[FileLock] = []


def work_alone(folder: Path, name: str = LOCK, what: str = "sweep", key: str = "hydra.sweep.dir") -> None:
    """Take a folder for this process, until the end of `released`.

    Args:
        folder: of a sweep or a run.
        name: of the lock in it.
        what: works there.
        key: by which another folder is named.

    Raises:
        SystemExit: with 1, after a sentence, if another process works there: Hydra makes a warning of any other
            exception where it calls this.
    """
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        print(
            f"error: another {what} is at work in {folder}; wait until it has ended, or name another folder with "
            f"{key}=",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except OSError:  # a file system without locks
        return
    _held.append(lock)


def is_at_work(folder: Path) -> bool:
    """Tell whether a run is at work in a folder."""
    path = folder / RUN_LOCK
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


@contextmanager
def released() -> Generator[None]:
    """Give back at the end of a block what `work_alone` has taken within it."""
    before = len(_held)
    try:
        yield
    finally:
        while len(_held) > before:
            _held.pop().release()
