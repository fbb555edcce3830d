"""Files that are built once and found again: named by a fingerprint, whole or not there at all. It knows no content.

A file is written under a name of its own in the same folder, synced, and renamed: one step that either happened or did
not. Two processes that build the same file at once both succeed, the later rename wins, and the content is the same. A
process killed in the middle leaves a temporary file that nobody reads and that a later build clears away.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

STALE_SECONDS = 6 * 3600
"""A temporary file that nobody has written to for so long belongs to a process that is gone."""


def default_cache_dir() -> Path:
    """`$LIGHTNING_RM_CACHE` where it is set, else `~/.cache/lightning_rm`."""
    return Path(os.environ.get("LIGHTNING_RM_CACHE") or Path.home() / ".cache" / "lightning_rm")


def fingerprint(**parts: object) -> str:
    """32 hex digits that change with any part; parts are whatever JSON can write."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def files_digest(paths: Iterable[Path]) -> str:
    """16 hex digits that change with the bytes of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def load_or_build(path: Path, load: Callable[[Path], T], build: Callable[[BinaryIO], None]) -> T:
    """What `load` makes of `path`, after `build` has written the file if it was missing or broken.

    Args:
        path: the file; its folder is made where it is missing.
        load: reads the file; ValueError, KeyError or OSError from it mean that the file is broken.
        build: writes the whole content to an open file. An error in it leaves no file behind.

    Returns:
        The loaded file.
    """
    if path.exists():
        try:
            return load(path)
        except (ValueError, KeyError, OSError) as error:
            log.warning("the cache file %s is broken (%s); it is built again", path, error)
    with draft_of(path) as draft:
        _clear_stale(path.parent)
        with draft.open("wb") as file:
            build(file)
            file.flush()
            os.fsync(file.fileno())
    return load(path)


@contextmanager
def draft_of(path: Path) -> Generator[Path]:
    """A file of its own beside `path` to write to: renamed to it at the end, gone after an error.

    Args:
        path: the file; its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _clear_stale(folder: Path) -> None:
    """Remove temporary files of processes that are gone."""
    for temporary in folder.glob("*.tmp"):
        try:
            if time.time() - temporary.stat().st_mtime > STALE_SECONDS:
                temporary.unlink()
        except FileNotFoundError:  # another process was quicker, or its file is finished
            continue
