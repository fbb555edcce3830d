"""Checksums: disks and copies flip bits, and weights that are other weights train and score all the same.

A checkpoint is a zip archive with the CRC-32 of each part, which torch writes and does not compare; the weights of an
exported folder have theirs in a file beside them. A CRC-32 finds every flipped byte, and reads 3 GB a second. It is
against accidents: whoever changes a file on purpose can change its checksum too. This file knows bytes; no tensors.
"""

from __future__ import annotations

import functools
import json
import zipfile
import zlib
from pathlib import Path

CHECKSUMS_FILE = "checksums.json"
"""Beside exported weights: file -> its length in bytes and its CRC-32."""

WEIGHTS = "*.safetensors"
CHUNK_BYTES = 2**22


def crc32_of(path: Path, length: int | None = None) -> int:
    """Return the CRC-32 of a file's first bytes, or of all: of Python's checksums the one that reads fastest."""
    checksum = 0
    left = path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while left and (chunk := file.read(min(CHUNK_BYTES, left))):
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
    return checksum


def check_archive(path: Path) -> None:
    """Compare the checksums of a zip archive, such as torch writes; once a process for a file that does not change.

    Raises:
        ValueError: if a part has other bytes than were written, or it is not such an archive.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a checkpoint in it")
    stat = path.stat()
    _check_archive(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _check_archive(path: Path, size: int, changed: int) -> None:
    """Check an archive; a file that was checked is known again by its size and time of change."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # a damaged index makes zipfile raise a dozen kinds
        raise ValueError(f"{path} is damaged in its index ({type(error).__name__})") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: its part {damaged} has other bytes than were written")


def write_checksums(folder: Path, pattern: str = WEIGHTS) -> None:
    """Write the checksums of a folder's weights, or of the files of another pattern, beside them."""
    found = {
        path.name: {"bytes": path.stat().st_size, "crc32": f"{crc32_of(path):08x}"}
        for path in sorted(folder.glob(pattern))
    }
    (folder / CHECKSUMS_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def check_folder(folder: Path) -> None:
    """Check that the weights in a folder are whole, each once in a process while it does not change.

    Raises:
        ValueError: if a file is shorter or longer than it says of itself, or differs from the checksums beside it.
    """
    files = [path for path in sorted(folder.glob("*")) if path.suffix in (".safetensors", ".bin", ".json")]
    _check_folder(folder, tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache(maxsize=256)
def _check_folder(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> None:
    check_weights(folder)
    for path, size, _ in files:
        if path.suffix == ".safetensors":
            _check_length(path, size)


def _check_length(path: Path, size: int) -> None:
    """Compare a file of tensors with its own head: 8 bytes that say how long that is, and where each tensor ends."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            told = json.loads(file.read(length) if length <= size else b"")
        ends = [int(each["data_offsets"][1]) for name, each in told.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: its head cannot be read; write or copy it again") from error
    if size != (expected := 8 + length + max(ends, default=0)):
        raise ValueError(f"{path} has {size:,} bytes and its head says {expected:,}: it is cut; write or copy it again")


def check_weights(folder: Path, part: tuple[int, int] = (0, 1)) -> None:
    """Compare the weights of a folder with the checksums beside them; a folder without any passes.

    Args:
        folder: of the weights.
        part: (r, n) compares every n-th file from the r-th on: n ranks divide them.

    Raises:
        ValueError: if a file has other bytes, or the checksums cannot be read.
    """
    told = folder / CHECKSUMS_FILE
    if not told.is_file():
        return
    try:
        expected = {
            str(name): (int(each["bytes"]), int(each["crc32"], 16))
            for name, each in json.loads(told.read_text(encoding="utf-8")).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{told} is damaged; delete it, if you trust the weights beside it") from error
    for name, (size, checksum) in list(expected.items())[part[0] :: part[1]]:
        path = folder / Path(name).name
        if not path.is_file():  # its reader says so, where it is needed
            continue
        if path.stat().st_size != size or crc32_of(path) != checksum:
            raise ValueError(
                f"{path} has other bytes than were written: it is damaged, so write or copy it again; or another was "
                f"put in its place, then delete {CHECKSUMS_FILE} beside it"
            )
