"""What systems do each in their own way: flush to the disk, and say whether a process is there.

Linux is what everything is tested on. On Windows a file is flushed only where it is open for writing, and a folder not
at all; and there is no asking for a process by a signal, which would interrupt or end it.
"""

from __future__ import annotations

import os
from pathlib import Path

WINDOWS = os.name == "nt"


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
