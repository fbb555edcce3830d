"""Files that are built once and found again: named by a fingerprint, whole or not there at all. It knows no content.

A file is written under a name of its own in the same folder, synced, and renamed: one step that either happened or did
not. Two processes that build the same file at once both succeed, the later rename wins, and the content is the same. A
process killed in the middle leaves a draft that a later build clears away, or goes on with.

A file ends with a checksum of its bytes: disks and copies flip bits, and training would not notice wrong tokens.
The checksum is compared when a process opens the file for the first time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from lightning_rm.checksums import crc32_of
from lightning_rm.drafts import clear_drafts, leave, taken_over
from lightning_rm.drafts import draft_of as draft_of  # its former place

log = logging.getLogger(__name__)

T = TypeVar("T")


def default_cache_dir() -> Path:
    """Return `$LIGHTNING_RM_CACHE` where it is set, else `~/.cache/lightning_rm`."""
    return Path(os.environ.get("LIGHTNING_RM_CACHE") or Path.home() / ".cache" / "lightning_rm")


def load_or_build(
    path: Path,
    load: Callable[[Path], T],
    build: Callable[[BinaryIO], None],
    go_on: Callable[[BinaryIO, Path], None] | None = None,
) -> T:
    """Return what `load` makes of `path`, after `build` has written the file if it was missing or broken.

    Args:
        path: the file; its folder is made where it is missing.
        load: reads the file; ValueError, KeyError or OSError from it mean that the file is broken.
        build: writes the whole content to an open file. An error in it leaves no file behind.
        go_on: writes the whole content after what a process that was killed, or stopped by Ctrl-C, had written of it, a
            file that may end anywhere; None begins anew.

    Returns:
        The loaded file.
    """
    if path.exists():
        try:
            check_seal(path)
            return load(path)
        except (ValueError, KeyError, OSError) as error:
            log.warning("the cache file %s is broken (%s); it is built again", path, error)
    begun = taken_over(path) if go_on else None
    with draft_of(path) as draft:
        clear_drafts(path.parent)
        try:
            with draft.open("wb") as file:
                if go_on and begun:
                    go_on(file, begun)
                else:
                    build(file)
        except (KeyboardInterrupt, ChildProcessError):
            if go_on:
                leave(draft, path)
            raise
        finally:
            if begun:
                begun.unlink(missing_ok=True)
        seal(draft)
    return load(path)


SEAL = b"lightning_rm crc"
"""Stands before the checksum at the end of a file."""

SEAL_BYTES = len(SEAL) + 4


def seal(path: Path) -> None:
    """Write the checksum of a file's bytes behind them."""
    checksum = crc32_of(path)
    with path.open("ab") as file:
        file.write(SEAL + checksum.to_bytes(4))


def check_seal(path: Path) -> None:
    """Raise ValueError for a file without a checksum at its end, or with that of other bytes."""
    length = path.stat().st_size - SEAL_BYTES
    with path.open("rb") as file:
        file.seek(max(length, 0))
        end = file.read()
    if length < 0 or not end.startswith(SEAL):
        raise ValueError("it has no checksum at its end")
    if crc32_of(path, length).to_bytes(4) != end[len(SEAL) :]:
        raise ValueError("its checksum is that of other bytes")
