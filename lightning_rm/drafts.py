"""Files that are swapped whole: a kill at any moment leaves the old one or the new one, never a mixture.

Each is written as a draft beside its place, flushed to the disk and renamed. A draft's name says which process of which
host writes it, so that those of the dead are told from those of the living, and from files of others. This file knows
file names; what is in the files is the caller's. `folder_drafts` does the same for folders.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_rm.system import flush, is_running

STALE_SECONDS = 24 * 3600
"""Age of a draft that nobody works on any more, where its process cannot be asked."""

DRAFT = re.compile(r".+\.(?P<host>[^.]*)-(?P<process>\d+)-[0-9a-f]{12}\.tmp")
"""The name of a file's draft: that of the file, and whose it is."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system calls a disk that is full."""


@contextmanager
def draft_of(path: Path) -> Generator[Path]:
    """Open a file of its own beside `path` to write to: on the disk and renamed to it at the end, gone after an error.

    Drafts of the same file that killed processes left are removed.

    Args:
        path: the file; its folder is made where it is missing.

    Raises:
        OSError: as the block raises it; one of the disk names the file, also one that a library has in words.
    """
    make_folder(path.parent)
    clear_drafts(path.parent, path.name)
    draft = _draft(path)
    try:
        yield draft
        flush(draft)
        draft.replace(path)
        flush(path.parent)
    except Exception as error:
        if (number := disk_error(error, draft)) is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error  # which file it was
    finally:
        with suppress(OSError):  # of a disk that is read-only; it must not take the place of the error above
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text as a file that is swapped whole, and return the file."""
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: object, indent: int | None = 2) -> None:
    """Write a value as a file of JSON that is swapped whole."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_json_lines(path: Path, values: Iterable[object]) -> None:
    """Write values as a file of JSON, one a line, that is swapped whole."""
    write_text(path, "".join(json.dumps(value) + "\n" for value in values))


def check_place(path: Path, *, folder: bool = False) -> Path:
    """Check that a file, or a folder, can be written to a place, before what goes there is computed.

    Args:
        path: where it goes; folders above it need not be there.
        folder: whether it is a folder.

    Returns:
        The nearest folder that is there already, the place itself if it is one.

    Raises:
        OSError: if there is a folder in the place of the file or a file in that of a folder, or nothing can be written
            there.
    """
    if not folder and path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "there is a folder in the place of the file", str(path))
    above = path.absolute() if folder else path.absolute().parent
    there = next(one for one in (above, *above.parents) if os.path.lexists(one))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "there is a file in the place of the folder", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it cannot be written", str(there))
    return there


@contextmanager
def naming(path: Path) -> Generator[None]:
    """Have an error of the disk name the file, as one does that comes where a file is opened: for files that grow.

    Raises:
        OSError: as the block raises it.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def taken_over(path: Path) -> Path | None:
    """Return the largest draft of a file that a dead process of this host left, renamed to one of this process.

    Of two processes that ask at once, one gets it.
    """
    left = [draft for draft in path.parent.glob(f"{glob.escape(path.name)}.*.tmp") if _is_left(draft)]
    sizes: dict[Path, int] = {}
    for draft in left:
        with suppress(FileNotFoundError):
            sizes[draft] = draft.stat().st_size
    for draft in sorted(sizes, key=lambda draft: -sizes[draft]):
        with suppress(FileNotFoundError):  # another process was quicker
            return draft.rename(_draft(path))
    return None


def leave(draft: Path, path: Path) -> None:
    """Leave the draft of a file to the process that comes after this one, which takes it over."""
    draft.rename(_draft(path))


def clear_drafts(folder: Path, name: str | None = None) -> None:
    """Remove the drafts that dead processes have left in a folder: those of one file, or all."""
    for draft in folder.glob("*.tmp" if name is None else f"{glob.escape(name)}.*.tmp"):
        if DRAFT.fullmatch(draft.name) is None:
            continue
        try:
            if _is_left(draft) or time.time() - draft.stat().st_mtime > STALE_SECONDS:
                draft.unlink()
        except FileNotFoundError:  # another process was quicker, or the file is finished
            continue


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises:
        OSError: if it cannot be made; where there is a file in its place, in words.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "there is a file in the place of the folder", str(folder)) from None


def disk_error(error: Exception, draft: Path) -> int | None:
    """Return the system's number of an error that names no file, or a draft's: an OSError's, or the one that a library
    in Rust has in words.

    safetensors says `I/O error: No space left on device (os error 28)`.
    """
    if isinstance(error, OSError):
        return error.errno if error.filename is None or str(draft) in str(error.filename) else None
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _draft(path: Path) -> Path:
    """Return a name for a draft of this process."""
    return path.with_name(f"{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")


def _is_left(draft: Path) -> bool:
    """Tell whether a file is a draft whose process, of this host, is dead."""
    parts = DRAFT.fullmatch(draft.name)
    return parts is not None and parts["host"] == _host() and is_running(int(parts["process"])) is False


def _host() -> str:
    """Return this host's name, without the dots that end the file's own name in its draft's."""
    return socket.gethostname().replace(".", "_")
