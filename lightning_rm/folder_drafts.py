"""Folders that are swapped whole, as `drafts` has it for files: a kill leaves the old one or the new one."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from lightning_rm.drafts import STALE_SECONDS, disk_error, make_folder
from lightning_rm.system import flush, is_running

AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def folder_draft(target: str | Path, keep: Callable[[str], bool] = lambda name: False) -> Generator[Path]:
    """Make an empty folder beside `target` to write to: swapped with it at the end, gone after an error.

    Files are flushed to the disk before the swap. Drafts that killed processes left beside the target are removed.

    Args:
        target: the folder; its parents are made. Where it is a link, what it points to is replaced.
        keep: of the files and folders that lie in the target, by name, those that stay in it, unless the draft has one
            of that name.

    Raises:
        NotADirectoryError: if the target is a file.
        OSError: if this process works in it: whoever stands in a folder that is swapped stands in a removed one.
    """
    target = Path(target).resolve()
    if _works_in(target):
        here = "this process works there, and the folder is replaced whole; name one below it"
        raise OSError(errno.EBUSY, here, str(target))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "there is a file in the place of the folder", str(target))
    make_folder(target.parent)
    _clear(target)
    draft = target.with_name(f"{_prefix(target)}{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir()
        yield draft
        if target.is_dir():
            for entry in target.iterdir():
                if keep(entry.name) and not (draft / entry.name).exists():
                    _link(entry, draft / entry.name)
            shutil.copymode(target, draft)
        _flush(draft)
        _swap(draft, target)
    except Exception as error:
        if (number := disk_error(error, draft)) is None:
            raise
        raise OSError(number, os.strerror(number), str(target)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # the old one after a swap


def _works_in(folder: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(folder)
    except FileNotFoundError:  # it works in none that is still there
        return False


def _swap(draft: Path, target: Path) -> None:
    """Give the draft the target's name; what was there, if anything, gets the draft's name."""
    if not target.exists():
        draft.rename(target)
    elif not _exchange(draft, target):
        # No exchange on this system: for a moment the name is nobody's, and both folders are whole.
        old = target.with_name(f"{target.name}.old-{uuid.uuid4().hex[:8]}")
        target.rename(old)
        draft.rename(target)
        old.rename(draft)
    flush(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step, where the system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _link(source: Path, copy: Path) -> None:
    """Give a file, or all files of a folder, another name; copy them where the file system has no links."""
    if source.is_dir() and not source.is_symlink():
        copy.mkdir()
        for entry in source.iterdir():
            _link(entry, copy / entry.name)
        return
    try:
        os.link(source, copy, follow_symlinks=False)
    except (OSError, NotImplementedError):  # the latter on Windows
        shutil.copy2(source, copy, follow_symlinks=False)


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            flush(path)
    flush(folder)


def _prefix(target: Path) -> str:
    return f".draft-{target.name}-{socket.gethostname()}-"


def _clear(target: Path) -> None:
    """Remove the drafts of processes that are gone."""
    for draft in target.parent.glob(f".draft-{target.name}-*"):
        here = draft.name.removeprefix(_prefix(target))
        number = here.partition("-")[0]
        gone = here != draft.name and number.isdigit() and is_running(int(number)) is False
        if gone or time.time() - draft.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(draft, ignore_errors=True)
