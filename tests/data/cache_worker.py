"""What the processes of test_cache.py do; it imports little, so that they start soon."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import BinaryIO

from lightning_rm.data.cache import load_or_build

CONTENT = b"whole" * 100_000


def load(path: Path) -> bytes:
    """The content; a file that is not whole is a broken one."""
    content = path.read_bytes()
    if content != CONTENT:
        raise ValueError(f"{len(content)} bytes")
    return content


def build(file: BinaryIO) -> None:
    file.write(CONTENT)


def build_together(path: Path, meeting: Path, num_parties: int) -> None:
    """Build only when all parties are building, so that none finds the file."""

    def meet_and_build(file: BinaryIO) -> None:
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < num_parties:
            time.sleep(0.01)
        build(file)

    assert load_or_build(path, load, meet_and_build) == CONTENT


def killed_while_building(path: Path) -> None:
    """Die in the middle of a write, as a process does when its machine runs out of memory."""

    def half(file: BinaryIO) -> None:
        file.write(CONTENT[: len(CONTENT) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    load_or_build(path, load, half)
