"""Readers: a file to its raw rows, each with the place where it stands. They know files, not what a row means.

A place is one that a user can open: `pairs.jsonl:17` is a line, counted from 1; `pairs.parquet row 17` and
`pairs.json row 17` are places in a table or an array, counted from 0. A line that cannot be read costs one row. A file
that cannot be read to its end is an error, since nobody could count what it lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import pyarrow as pa

from lightning_rm.data.formats.fields import BAD_ENCODING, BROKEN_JSON, TOO_LARGE, WRONG_TYPE, Raw, RowError, shown
from lightning_rm.data.formats.limits import MAX_LINE_BYTES, MIB
from lightning_rm.data.formats.nested import JSON_ROWS, parse_json
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.opened import chunks_of, lines_of
from lightning_rm.data.sources.parquet import parquet_rows
from lightning_rm.globs import is_glob, named_paths
from lightning_rm.parquet_files import open_parquet

SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz", ".parquet")

BLANK = b"\xef\xbb\xbf \t\r\n"
"""What may stand before a row: blanks, and the mark that some editors put at the start of UTF-8."""

JSON_BLANKS = re.compile(r"[ \t\n\r]*")


class Record(NamedTuple):
    """A raw row and its place."""

    origin: str
    raw: Raw


def find_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files that a path, a glob or a list of them names: a list in its order, the files of a glob sorted.

    Raises:
        ValueError: if a path or a glob names no file, or one that no reader knows.
    """
    if not isinstance(path, str | Path):
        if not isinstance(path, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]  # a number on a command line
            raise ValueError(f"{path} is not the path of a file, nor a list of them; give a text")
        files = [file for item in path for file in find_files(item)]
        if not files:
            raise ValueError("an empty list of files; name one at least")
        return files
    if Path(path).expanduser().is_dir():
        raise ValueError(f"{path} is a folder; name the files in it, {path}/*.jsonl, or read it with DiskSource")
    files = named_paths(path, recursive=True)
    if not files:
        looked_for = "no file matches" if is_glob(path) else "there is no file"
        raise ValueError(f"{looked_for} {path} (looked for from {Path.cwd()})")
    for file in files:
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is not a file but a folder, a pipe or a device: it may have no end")
        if not file.name.lower().endswith(SUFFIXES):
            raise ValueError(f"{file} has no suffix that can be read; known are {', '.join(SUFFIXES)}")
    return files


def read_file(path: Path) -> Iterator[Record | BadRow]:
    """Return the rows of a file in order.

    JSON is read by what the file holds, an array or a row a line; blank lines are not rows.

    Raises:
        ValueError: if the file is damaged or unpacks without end: a truncated gzip or Parquet file, a broken array; or
            if it holds one object over many lines.
    """
    if path.suffix.lower() == ".parquet":
        return _table(path)
    return _array(path) if is_array(path) else _rows(path)


def count_rows(path: Path) -> int | None:
    """Say how many rows a file has, without reading them as rows; None for a JSON array."""
    if path.suffix.lower() == ".parquet":
        with open_parquet(path) as table:
            return table.metadata.num_rows
    return None if is_array(path) else sum(1 for _ in lines_of(path))


def is_array(path: Path) -> bool:
    """Tell whether a JSON file holds an array, and not a row a line."""
    if not path.name.lower().removesuffix(".gz").endswith(".json"):
        return False
    first = next((stripped for chunk in chunks_of(path) if (stripped := chunk.lstrip(BLANK))), b"")
    return first.startswith(b"[")


def _rows(path: Path) -> Iterator[Record | BadRow]:
    is_first = True
    for number, line in lines_of(path):
        origin = f"{path}:{number}"
        if line is None:
            limit = f"{MAX_LINE_BYTES // MIB} MiB"
            yield BadRow(origin, TOO_LARGE, f"the line has more than {limit}, and no row of that size is read")
            continue
        row = _row(origin, line)
        if is_first and isinstance(row, BadRow) and row.reason == BROKEN_JSON:
            _check_row_a_line(path, origin)
        yield row
        is_first = False


def _check_row_a_line(path: Path, origin: str) -> None:
    """Raise ValueError for a file whose first row takes several lines, or that begins an array: that is one fault, not
    one for each line.
    """
    start = b"".join(islice(chunks_of(path), 4)).decode("utf-8-sig", errors="replace").lstrip()
    if re.match(r"\[\s*\{", start):
        raise ValueError(f"{origin}: an array begins here, for which a file has a name that ends in .json; rename it")
    if not start.startswith("{"):
        return
    try:
        _, end = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return
    if (num_lines := start.count("\n", 0, end) + 1) > 1:
        raise ValueError(
            f"{origin}: broken JSON: a row begins here that takes {num_lines:,} lines; write each row on one line (jq "
            "-c, json.dumps without indent), or all of them as one array in a .json file"
        )


def _row(origin: str, line: bytes) -> Record | BadRow:
    try:
        return _record(origin, parse_json(line.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return BadRow(origin, BAD_ENCODING, f"byte {error.start} of the line is not UTF-8; save the file as UTF-8")
    except RowError as error:
        return BadRow(origin, error.reason, f"{error.detail}; the line begins {shown(line[:40])}")


def _array(path: Path) -> Iterator[Record | BadRow]:
    """Yield the items of an array, one by one: a bad one costs one row, and all of them are never in memory at once."""
    try:
        written = b"".join(chunks_of(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    at, place = _after(written, written.index("[") + 1), 0
    while not written.startswith("]", at):
        origin = f"{path} row {place}"
        try:
            try:
                item, end = JSON_ROWS.raw_decode(written, at)
                row = _record(origin, item)
            except RowError as error:
                row, (_, end) = BadRow(origin, error.reason, error.detail), json.JSONDecoder().raw_decode(written, at)
        except json.JSONDecodeError as error:
            raise _broken(path, error.msg, written, error.pos) from error
        except RecursionError as error:
            raise _broken(path, str(error), written, at) from error
        yield row
        at, place = _after(written, end), place + 1
        if written.startswith(",", at):
            at = _after(written, at + 1)
            if written.startswith("]", at):
                raise _broken(path, "an item is missing after a comma", written, at)
        elif not written.startswith("]", at):
            raise _broken(path, "the array does not go on with a comma or end", written, at)
    if (end := _after(written, at + 1)) < len(written):
        raise _broken(path, "there is more after the array's end", written, end)


def _broken(path: Path, fault: str, written: str, at: int) -> ValueError:
    line_number = written.count("\n", 0, at) + 1
    return ValueError(f"{path}:{line_number}: broken JSON: {fault}")


def _after(written: str, at: int) -> int:
    """Return the place of the next character that is not blank."""
    found = JSON_BLANKS.match(written, at)
    return found.end() if found else at


def _record(origin: str, value: object) -> Record | BadRow:
    if isinstance(value, Mapping):
        return Record(origin, cast(Raw, value))
    return BadRow(origin, WRONG_TYPE, f"a row must be an object with fields, found {shown(value)}")


def _table(path: Path) -> Iterator[Record | BadRow]:
    try:
        for place, raw in enumerate(parquet_rows(path)):
            origin = f"{path} row {place}"
            yield BadRow(origin, raw.reason, raw.detail) if isinstance(raw, RowError) else Record(origin, raw)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
