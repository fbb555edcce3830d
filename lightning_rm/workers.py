"""What a worker process of ours is: it leaves signals to the process that started it, and ends with that process.

It knows nothing of the work.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing.process import BaseProcess


def follow_parent(worker: int = 0) -> None:
    """Set up this process as a worker: called in it, before its work.

    Ctrl-C, which a terminal sends to all processes, is the parent's to hear. A parent that is killed tells nobody, and
    a worker may be waiting for it to take a batch, through a pipe that the worker itself holds open: so a thread waits
    for the parent's end.

    Args:
        worker: its number, which torch gives; not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this process, whatever its other threads wait for, when its parent has ended."""
    parent.join()
    signal.raise_signal(signal.SIGTERM)
