"""Checksums: disks and copies flip bits, and weights that are other weights train and score all the same.

So does a base of rotary positions with another digit, or a vocabulary with another letter. A checkpoint is a zip
archive with the CRC-32 of each part, which torch writes and does not compare; the files of an exported folder have
theirs in a file beside them. A CRC-32 finds every flipped byte, and reads 3 GB a second. It is against accidents:
whoever changes a file on purpose can change its checksum too. This file knows bytes; no tensors.
"""

from __future__ import annotations

import functools
import json
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_rm.drafts import write_json
from lightning_rm.told import read_object

CHECKSUMS_FILE = "checksums.json"
"""Beside exported weights, and in a run's folder: file -> its length in bytes and its CRC-32."""

WEIGHTS = ".safetensors"
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


def write_checksums(folder: Path, covers: Callable[[str], bool]) -> None:
    """Write the checksums of the files of a folder beside them.

    Args:
        folder: of the files.
        covers: tells by a file's name whether it has one.
    """
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != CHECKSUMS_FILE)
    found = {path.name: _checksum(path) for path in files if covers(path.name)}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def write_checksums_below(folder: Path, patterns: Iterable[str], coming: Mapping[str, bytes]) -> None:
    """Write the checksums of files below a folder into it, for `check_file`.

    Args:
        folder: of a run.
        patterns: of the files that are there.
        coming: files that will be written next -> what will be in them.
    """
    there = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    told = {path.relative_to(folder).as_posix(): _checksum(path) for path in sorted(there)}
    told |= {name: _told(len(content), zlib.crc32(content)) for name, content in coming.items()}
    write_json(folder / CHECKSUMS_FILE, told)


def check_file(path: Path) -> None:
    """Compare a file with its checksum, in its folder or in the one above; one without any passes.

    Raises:
        ValueError: if it has other bytes, or the checksums cannot be read.
    """
    for folder in (path.parent, path.parent.parent):
        name = path.relative_to(folder).as_posix()
        if name in (expected := _expected(folder)):
            _compare(path, *expected[name])


def with_checksum(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the checksum of all that it says, under `crc32`: for a file that stands alone."""
    return {**told, "crc32": f"{zlib.crc32(json.dumps(told, sort_keys=True).encode()):08x}"}


def check_object(told: Mapping[str, Any], name: object) -> None:
    """Compare what `with_checksum` returned, once it was read again; an object without a checksum passes.

    Raises:
        ValueError: if it says something else than was written.
    """
    said = {key: value for key, value in told.items() if key != "crc32"}
    if "crc32" in told and with_checksum(said) != told:
        raise ValueError(
            f"{name} says something else than was written: it is damaged, so write or copy it again; or it was changed "
            "on purpose, then take its crc32 out"
        )


@contextmanager
def rewriting(path: Path) -> Generator[None]:
    """Write a file again that may have a checksum beside it, which is taken out before and put in after.

    A kill in between leaves the file without one.
    """
    file = path.parent / CHECKSUMS_FILE
    told = read_object(file) if file.is_file() else {}
    if path.name not in told:
        yield
        return
    write_json(file, {name: each for name, each in told.items() if name != path.name})
    yield
    write_json(file, told | {path.name: _checksum(path)})


def _checksum(path: Path) -> dict[str, object]:
    return _told(path.stat().st_size, crc32_of(path))


def _told(size: int, checksum: int) -> dict[str, object]:
    return {"bytes": size, "crc32": f"{checksum:08x}"}


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


def check_texts(folder: Path) -> None:
    """Compare what lies beside the weights of a folder, as `check_weights` does; the weights are not read.

    Raises:
        ValueError: if a file has other bytes, or the checksums cannot be read.
    """
    for name, each in _expected(folder).items():
        if not name.endswith(WEIGHTS):
            _compare(folder / Path(name).name, *each)


def check_weights(folder: Path, part: tuple[int, int] = (0, 1)) -> None:
    """Compare the files of a folder with the checksums beside them; a folder without any passes.

    Args:
        folder: of the weights.
        part: (r, n) compares every n-th file from the r-th on: n ranks divide them.

    Raises:
        ValueError: if a file has other bytes, or the checksums cannot be read.
    """
    for name, each in list(_expected(folder).items())[part[0] :: part[1]]:
        _compare(folder / Path(name).name, *each)


def _expected(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the length and the checksum that each file of a folder had when it was written."""
    told = folder / CHECKSUMS_FILE
    if not told.is_file():
        return {}
    try:
        return {
            str(name): (int(each["bytes"]), int(each["crc32"], 16))
            for name, each in json.loads(told.read_text(encoding="utf-8")).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{told} is damaged; delete it, if you trust the weights beside it") from error


def _compare(path: Path, size: int, checksum: int) -> None:
    if not path.is_file():  # its reader says so, where it is needed
        return
    if path.stat().st_size != size or crc32_of(path) != checksum:
        raise ValueError(
            f"{path} has other bytes than were written: it is damaged, so write or copy it again; or it was changed on "
            f"purpose, then take {path.name} out of {CHECKSUMS_FILE}"
        )
