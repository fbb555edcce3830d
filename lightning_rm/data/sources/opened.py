"""The bytes of a file, packed or not, by lines or in pieces, within the bounds of `limits`. It knows no row."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from lightning_rm.data.formats.limits import (
    FREE_EXPANSION_BYTES,
    MAX_ARRAY_BYTES,
    MAX_EXPANSION,
    MAX_LINE_BYTES,
    MIB,
)


def lines_of(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines of a file that are not blank, and their numbers; None for one that is too long."""
    with _opened(path) as file:
        number, total = 0, 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            rest, is_whole = line, True
            while not rest.endswith(b"\n"):
                total += len(rest)
                _check_expansion(path, total)
                if not (rest := file.readline(MIB)):
                    break
                is_whole = False
            total += len(rest)
            _check_expansion(path, total)
            if not is_whole:
                yield number, None
            elif line.strip():
                yield number, line


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file that holds an array, in pieces."""
    total = 0
    with _opened(path) as file:
        while chunk := file.read(MIB):
            total += len(chunk)
            _check_expansion(path, total)
            if total > MAX_ARRAY_BYTES:
                raise ValueError(
                    f"{path} holds an array of more than {MAX_ARRAY_BYTES // MIB:,} MiB, and arrays are read whole; "
                    "write a row a line (.jsonl), or Parquet"
                )
            yield chunk


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path} cannot be read to its end: {error}; fetch or pack it again") from error


def _check_expansion(path: Path, total: int) -> None:
    """Raise ValueError for a gzip file that unpacks to more than any text could."""
    if path.suffix.lower() == ".gz" and total > FREE_EXPANSION_BYTES + MAX_EXPANSION * path.stat().st_size:
        raise ValueError(
            f"{path} unpacks to more than {MAX_EXPANSION} times its size, which no text does; unpack it with gunzip if "
            "you trust it"
        )
