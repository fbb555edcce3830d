"""Rows with their rewards, in the form of the file that they came from. It knows files, not how rewards are made.

All of a row's own fields stay as they are: JSON values as they were read, Parquet columns with their types. A file is
written beside its place and renamed into it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.types import is_nested

from lightning_rm.data.formats.fields import RowError
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.parquet import parquet_tables, plain_type
from lightning_rm.data.sources.readers import is_array, read_file
from lightning_rm.drafts import draft_of
from lightning_rm.parquet_files import parquet_writer
from lightning_rm.scoring.new_fields import MOVED, NewFields, Scored


class Kinds(NamedTuple):
    """What rows a file holds: whether some have one response alone, some several, some a reward, some no reward."""

    ones: bool
    lists: bool
    scored: bool
    refused: bool


def check_suffixes(source: Path, out: Path) -> None:
    """Raise ValueError unless a file is to be written in the form of the one that is read."""
    kind = _kind(source)
    if _kind(out) != kind:
        ends = kind if kind == ".parquet" else f"{kind} or {kind}.gz"
        raise ValueError(
            f"out={str(out)!r}: rows come out in the form of {source.name}; give a name that ends in {ends}"
        )


def _kind(path: Path) -> str:
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return ".jsonl" if suffix == ".ndjson" else suffix


def write_rows(source: Path, out: Path, scored: Iterable[Scored], fields: NewFields, kinds: Kinds) -> None:
    """Write the rows of a file with their rewards.

    Args:
        source: the file; it is read again.
        out: where they go, in one step.
        scored: for every row its rewards, in order.
        fields: which fields are added.
        kinds: what the rows hold, which says what columns a table has.
    """
    with draft_of(out) as draft:
        if _kind(source) == ".parquet":
            _write_table(source, draft, iter(scored), fields, kinds)
        else:
            array = is_array(source)
            with _opened(draft, out) as file:
                file.write(b"[\n" if array else b"")
                for number, row in enumerate(_written(source, scored, fields)):
                    file.write((b",\n" if array and number else b"") + json_line(row) + (b"" if array else b"\n"))
                file.write(b"\n]\n" if array else b"")


def _written(source: Path, scored: Iterable[Scored], fields: NewFields) -> Iterator[dict[str, Any]]:
    for record, row in zip(read_file(source), scored, strict=True):
        yield fields.of(row) if isinstance(record, BadRow) else fields.written(record.raw, row)


@contextmanager
def _opened(draft: Path, out: Path) -> Generator[BinaryIO]:
    """Open a draft to write to; it is compressed, without the time of day, if the file is to be."""
    with draft.open("wb") as file:
        if out.suffix.lower() != ".gz":
            yield file
        else:
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                yield cast(BinaryIO, packed)


def json_line(row: Mapping[str, Any]) -> bytes:
    """Write JSON on one line; half a surrogate pair, which UTF-8 cannot write, stays the escape that it was."""
    try:
        return json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(row).encode()


def _write_table(source: Path, draft: Path, scored: Iterator[Scored], fields: NewFields, kinds: Kinds) -> None:
    """Write the columns of a Parquet file as they are, and the new ones after them.

    A row that is too large to be read has nulls in the place of its own columns, beside the reason.
    """
    plain = _written_schema(pq.read_schema(source))
    schema = _schema(plain, fields, kinds)
    new = pa.schema([field for field in schema if field.name not in plain.names])

    def is_made(name: str) -> bool:
        return name in MOVED or name not in plain.names

    with parquet_writer(draft, schema) as writer:
        for piece in parquet_tables(source):
            if isinstance(piece, RowError):
                writer.write_table(pa.Table.from_pylist([fields.of(next(scored), nested=kinds.lists)], schema))
                continue
            rows = list(islice(scored, piece.num_rows))
            if fields.best:
                moved = [name for name in piece.column_names if name in MOVED]
                read = piece.select(moved).to_pylist() if moved else [{} for _ in rows]
                written = [fields.written(raw, row) for raw, row in zip(read, rows, strict=True)]
                made = pa.Table.from_pylist(written, pa.schema([field for field in schema if is_made(field.name)]))
                columns = [made[name] if is_made(name) else piece[name] for name in schema.names]
            else:
                made = pa.Table.from_pylist([fields.of(row, nested=kinds.lists) for row in rows], new)
                columns = [*piece.columns, *made.columns]
            columns = [_of_type(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _written_schema(schema: Any) -> Any:
    """Return the columns of a file in types that Arrow can write: views of texts in structs in lists are not."""
    fields = [field.with_type(plain_type(field.type)) if is_nested(field.type) else field for field in schema]
    return pa.schema(fields, schema.metadata)


def _of_type(column: Any, kind: Any) -> Any:
    """Return a column in the type that it is written in: views of texts or lists are read as others, which Arrow cannot
    cast back.
    """
    return column if column.type == kind else pa.array(column.to_pylist(), kind)


def _schema(schema: Any, fields: NewFields, kinds: Kinds) -> Any:
    """Return the columns of the file and the types of the new ones; with `best`, lists stay where a row of them is
    refused.
    """
    number, names = pa.float32(), schema.names
    added: dict[str, pa.DataType] = {"reason": pa.string()}
    if kinds.ones or fields.best:
        added["reward"] = number
    if kinds.lists:
        added["best"] = pa.int32()
        if not fields.best:
            added["rewards"] = pa.list_(number)
    if fields.members:
        added["members"] = pa.list_(pa.list_(number)) if kinds.lists and not fields.best else pa.list_(number)
    new = [pa.field(f"{fields.prefix}{name}", kind) for name, kind in added.items()]
    if fields.best and kinds.lists:
        sides = ["responses"] if "responses" in names else ["chosen", "rejected"]
        kind = schema.field(sides[0]).type
        new.append(pa.field("response", kind.value_type if sides == ["responses"] else kind))
        if not kinds.refused:
            schema = pa.schema([field for field in schema if field.name not in sides], schema.metadata)
    return pa.schema([*schema, *new], schema.metadata)
