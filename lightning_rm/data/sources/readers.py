"""Readers: a file to its raw rows, each with the place where it stands. They know files, not what a row means.

A place is one that a user can open: `pairs.jsonl:17` is a line, counted from 1; `pairs.parquet row 17` and
`pairs.json row 17` are places in a table or an array, counted from 0. A line that cannot be read costs one row. A file
that cannot be read to its end is an error, since nobody could count what it lost.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_rm.data.formats.fields import BAD_ENCODING, BROKEN_JSON, WRONG_TYPE, Raw, shown
from lightning_rm.data.rows import BadRow

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz", ".parquet")

BATCH_ROWS = 1000
"""Rows of a Parquet file that are in memory at a time."""


class Record(NamedTuple):
    """A raw row and its place."""

    where: str
    raw: Raw


def find_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path, a glob or a list of them names: a list in its order, the files of a glob sorted.

    Raises:
        ValueError: if a path or a glob names no file, or one that no reader knows.
    """
    if not isinstance(path, str | Path):
        files = [file for item in path for file in find_files(item)]
        if not files:
            raise ValueError("an empty list of files; name one at least")
        return files
    named = Path(path).expanduser()
    if named.is_dir():
        raise ValueError(f"{path} is a folder; name the files in it, {path}/*.jsonl, or read it with DiskSource")
    files = [named] if named.is_file() else sorted(map(Path, glob.glob(str(named), recursive=True)))
    if not files:
        looked_for = "no file matches" if glob.has_magic(str(named)) else "there is no file"
        raise ValueError(f"{looked_for} {path} (looked for from {Path.cwd()})")
    for file in files:
        if not file.name.lower().endswith(SUFFIXES):
            raise ValueError(f"{file} has no suffix that can be read; known are {', '.join(SUFFIXES)}")
    return files


def read_file(path: Path) -> Iterator[Record | BadRow]:
    """The rows of a file in order.

    JSON is read by what the file holds, an array or a row a line; blank lines are no rows.

    Raises:
        ValueError: if the file is damaged: a truncated gzip or Parquet file, a broken array.
    """
    if path.suffix.lower() == ".parquet":
        return _table(path)
    lines = enumerate(_lines(path), start=1)
    filled = ((number, line) for number, line in lines if line.strip())
    first = next(filled, None)
    if first is None:
        return iter(())
    if is_array(path):
        return _array(path)
    return _rows(path, chain([first], filled))


def count_rows(path: Path) -> int | None:
    """How many rows a file has, without reading them as rows; None for a JSON array."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as table:
            return table.metadata.num_rows
    return None if is_array(path) else sum(1 for line in _lines(path) if line.strip())


def is_array(path: Path) -> bool:
    """Whether a JSON file holds an array, and not a row a line."""
    if not path.name.lower().removesuffix(".gz").endswith(".json"):
        return False
    first = next((line for line in _lines(path) if line.strip()), b"")
    return first.lstrip(b"\xef\xbb\xbf \t\r").startswith(b"[")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield from file
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path} cannot be read to its end: {error}; fetch or pack it again") from error


def _rows(path: Path, lines: Iterable[tuple[int, bytes]]) -> Iterator[Record | BadRow]:
    for number, line in lines:
        where = f"{path}:{number}"
        try:
            yield _record(where, json.loads(line.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            yield BadRow(where, BAD_ENCODING, f"byte {error.start} of the line is not UTF-8; save the file as UTF-8")
        except (ValueError, RecursionError) as error:
            yield BadRow(where, BROKEN_JSON, f"{error}; the line begins {shown(line[:40])}")


def _array(path: Path) -> Iterator[Record | BadRow]:
    try:
        items: object = json.loads(b"".join(_lines(path)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: broken JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: broken JSON: {error}") from error
    for place, item in enumerate(cast(list[object], items)):
        yield _record(f"{path} row {place}", item)


def _record(where: str, value: object) -> Record | BadRow:
    if isinstance(value, Mapping):
        return Record(where, cast(Raw, value))
    return BadRow(where, WRONG_TYPE, f"a row must be an object with fields, found {shown(value)}")


def _table(path: Path) -> Iterator[Record | BadRow]:
    try:
        with pq.ParquetFile(path) as table:
            place = 0
            for batch in table.iter_batches(BATCH_ROWS):
                for raw in batch.to_pylist():
                    yield Record(f"{path} row {place}", raw)
                    place += 1
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hex digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
