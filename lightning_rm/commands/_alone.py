"""One run, or one sweep, in a folder at a time, and one command that writes a file: a second one would take away what
the first has written.

The lock is the system's, so that a process that was killed leaves none; file systems without locks have none. It knows
files and folders; no command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".sweep.lock"
"""The file in a sweep's folder that is locked as long as its launching process works there; it stays."""

RUN_LOCK = ".hydra/run.lock"
"""The same of a run, in what Hydra writes there."""

WAIT_SECONDS = 10.0
"""Processes that a killed one has started end some seconds after it, and hold its lock as long."""

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
"""What launchers call the number of a process, or of its machine: of the first all that are there are 0."""

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
    _take(
        folder / name,
        f"another {what} is at work in {folder}; wait until it has ended, or name another folder with {key}=",
    )


@contextmanager
def writing_alone(out: Path, what: str) -> Generator[None]:
    """Have a file or a folder that is written to this process, and its other ranks, alone within a block.

    Two at once would remove each other's parts, and lose what they had computed. The lock lies beside it and goes at
    the end, with folders that were made for it alone. As with runs, a job that Slurm has put back takes none.

    Args:
        out: what is written.
        what: writes it.

    Raises:
        SystemExit: as `work_alone`.
    """
    if os.environ.get("SLURM_RESTART_COUNT") or any(int(os.environ.get(name) or 0) for name in RANKS):
        yield
        return
    whole = out.expanduser().resolve()
    lock = whole.parent / f".{whole.name}.lock"
    made = [above for above in lock.parents if not above.exists()]
    try:
        with released():
            _take(lock, f"another {what} is writing {out}; wait until it has ended, or name another with out=")
            try:
                yield
            finally:
                with suppress(OSError):
                    lock.unlink()
    finally:
        with suppress(OSError):  # it holds what was written
            for folder in made:
                folder.rmdir()


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


def _take(path: Path, otherwise: str) -> None:
    """Take a lock until the end of `released`; print what is otherwise, and exit with 1, if another process has it."""
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        print(f"error: {otherwise}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError:  # a file system without locks, or where nothing can be written, as the command will say
        return
    _held.append(lock)


@contextmanager
def released() -> Generator[None]:
    """Give back at the end of a block what `work_alone` has taken within it."""
    before = len(_held)
    try:
        yield
    finally:
        while len(_held) > before:
            _held.pop().release()
