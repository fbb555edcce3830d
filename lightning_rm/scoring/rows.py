"""Rows with their rewards, in the form of the file that they came from. It knows files, not how rewards are made.

All of a row's own fields stay as they are: JSON values as they were read, Parquet columns with their types. A file is
written beside its place and renamed into it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.types import is_nested

from lightning_rm.data.formats.fields import RowError
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.parquet import parquet_tables, plain_type
from lightning_rm.data.sources.readers import is_array, read_file
from lightning_rm.drafts import draft_of
from lightning_rm.parquet_files import parquet_writer
from lightning_rm.scoring.parts import Refusal, Rewards

MOVED = ("responses", "chosen", "rejected", "response")
"""The fields that `best` reads or writes; all others stay."""


class Kinds(NamedTuple):
    """What rows a file holds: whether some have one response alone, some several, some a reward, some no reward."""

    ones: bool
    lists: bool
    scored: bool
    refused: bool


class Scored(NamedTuple):
    """A row's rewards.

    Args:
        origin: the row's place in its file.
        rewards: (k,), NaN where there is none; none at all for a row that cannot be read.
        members: (k, M), those of each member.
        one: whether the row holds one response and no list of them.
        refusal: why a response, or the whole row, has no reward; with several refused responses, that of the first.
    """

    origin: str
    rewards: Rewards
    members: Rewards
    one: bool
    refusal: Refusal | None

    @property
    def best(self) -> int | None:
        """The place of the highest reward, the first of equal ones; None where there is none."""
        return None if np.isnan(self.rewards).all() else int(np.nanargmax(self.rewards))


@dataclass(frozen=True)
class NewFields:
    """Which fields are added to a row.

    Args:
        prefix: in front of their names.
        best: the best response alone takes the place of the list, or of chosen and rejected.
        members: the members' rewards too; in a table where rows have several responses, those of one are a list of one.
    """

    prefix: str = ""
    best: bool = False
    members: bool = False

    @property
    def names(self) -> list[str]:
        """The names that rows must not have yet."""
        names = ["reward", "rewards", "best", "reason", *(["members"] if self.members else [])]
        return [f"{self.prefix}{name}" for name in names]

    def of(self, scored: Scored, *, nested: bool = False) -> dict[str, Any]:
        """Return the new fields of a row by their names.

            one response            {"reward": 0.5}
            several, or a pair      {"rewards": [0.5, 1.5, null], "best": 1, "reason": "overlong: ..."}
            several, best alone     {"reward": 1.5, "best": 1}
            a row that is not read  {"reward": null, "reason": "missing field: ..."}

        Args:
            scored: the row's rewards.
            nested: whether the members' rewards of one response are in a list too.
        """
        rewards, members = _numbers(scored.rewards), [_numbers(row) for row in scored.members]
        found: dict[str, Any] = {}
        if not rewards:
            found = {"reward": None, "members": None}
        elif scored.one:
            found = {"reward": rewards[0], "members": members if nested else members[0]}
        elif self.best:
            best = scored.best
            found = {"reward": None, "best": None, "members": None}
            if best is not None:
                found = {"reward": rewards[best], "best": best, "members": members[best]}
        else:
            found = {"rewards": rewards, "best": scored.best, "members": members}
        if not self.members:
            del found["members"]
        if scored.refusal is not None:
            found["reason"] = str(scored.refusal)
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    def written(self, row: Mapping[str, Any], scored: Scored) -> dict[str, Any]:
        """Return a row with its new fields, and with the best response alone where that is asked for."""
        added = self.of(scored)
        place = scored.best
        if not self.best or scored.one or place is None:
            return {**row, **added}
        if row.get("responses") is not None:
            best = row["responses"][place]
            kept = {name: value for name, value in row.items() if name != "responses"}
        elif row.get("chosen") is not None and row.get("rejected") is not None:
            best = row[("chosen", "rejected")[place]]
            kept = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
        else:
            raise ValueError(
                f"{scored.origin}: best=true keeps one of the field 'responses', or of 'chosen' and 'rejected', and "
                "the row has them under other names; leave best out and take the one that `best` names"
            )
        if "response" in kept:
            raise ValueError(f"{scored.origin}: best=true writes the field 'response', and the row has one; rename it")
        return {**kept, "response": best, **added}


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


def _numbers(values: Rewards) -> list[float | None]:
    """Return the shortest decimals that are these float32; None for NaN."""
    return [None if np.isnan(value) else float(str(value)) for value in values]
