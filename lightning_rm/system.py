"""What systems do each in their own way: flush to the disk, say whether a process is there, and take a terminal away.

Linux is what everything is tested on. On Windows a file is flushed only where it is open for writing, and a folder not
at all; and there is no asking for a process by a signal, which would interrupt or end it.
"""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

WINDOWS = os.name == "nt"

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal that a terminal has been closed, or its connection lost; Windows has none."""


def hears_hangup() -> bool:
    """Tell whether a closed terminal ends this process; under `nohup` it does not."""
    return HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN


def leave_terminal() -> None:
    """Have what is printed to a terminal that was closed go nowhere: writing there is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):
            os.dup2(nowhere, number)
    os.close(nowhere)


def flush(path: Path) -> None:
    """Have the disk keep a file's bytes, or the names in a folder."""
    if not WINDOWS:
        number = os.open(path, os.O_RDONLY)
    elif path.is_dir():
        return
    else:
        number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def is_running(process: int) -> bool | None:
    """Tell whether a process of this machine is there; None where the system cannot be asked."""
    if WINDOWS:
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True
