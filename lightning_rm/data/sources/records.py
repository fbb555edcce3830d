"""Records: preference pairs in memory: a list of dicts, a `datasets.Dataset`, a data frame. It knows no file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable
from uuid import UUID

import numpy as np
import pyarrow as pa

from lightning_rm.data.formats.fields import TOO_LARGE, WRONG_TYPE, Columns, Raw, RowError, TableRow, shown
from lightning_rm.data.formats.limits import MAX_DEPTH
from lightning_rm.data.formats.responses import Prefill
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.arrow import arrow_rows, without_gaps
from lightning_rm.data.sources.options import RowOptions, Where
from lightning_rm.data.sources.parquet import BATCH_ROWS
from lightning_rm.data.sources.readers import Record
from lightning_rm.digests import chunks_digest

if TYPE_CHECKING:
    from datasets import Dataset


@runtime_checkable
class ArrowStream(Protocol):
    """A table that can be read as Arrow: a pandas or polars data frame, a `pyarrow.Table`."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The PyCapsule of Arrow's C data interface."""
        ...


Records = Iterable[Mapping[str, object]] | ArrowStream


class RecordRows:
    """Rows in memory as records, each with its place, and a digest of what they hold.

    Args:
        records: as in `RecordSource`.

    Raises:
        ValueError: as there.
    """

    def __init__(self, records: Records) -> None:
        if isinstance(records, Iterator):
            raise ValueError(
                f"records are of the type {type(records).__name__}, which can be read only once; give a list of them, "
                "RecordSource(list(records))"
            )
        self.records = _rows_of(records)

    def __iter__(self) -> Iterator[Record | BadRow]:
        """Yield the records in order; their places are `records row 17`, counted from 0."""
        return (_record(place, record) for place, record in enumerate(self.records))

    def digest(self) -> str:
        """Return a digest of the values.

        Raises:
            ValueError: for a value that cannot be told from another one, such as an image.
        """
        return chunks_digest(self._written())

    def _written(self) -> Iterator[bytes]:
        """Yield every record as a line of JSON."""
        for place, row in enumerate(self):  # one nested too deep to be written is digested as its error
            try:
                # Keys keep their order: a chat template may write out a tool definition as it stands.
                written = json.dumps(asdict(row) if isinstance(row, BadRow) else row.raw, default=_repeatable)
            except TypeError as error:
                raise ValueError(f"{_name(place)} {error}; leave that field out of the records") from None
            yield f"{written}\n".encode()


class RecordSource:
    """Pairs from rows in memory, read as the rows of a file are.

    Tuples and arrays are lists here, and any mapping is an object: the pairs are those of a file with the same rows.

    Args:
        records: mappings from field to value: a list of dicts, a `datasets.Dataset`, or whatever else can be read
            again and again; or a table, such as a pandas or polars `DataFrame`, read as the Parquet file that it would
            make. They are not copied; do not change them while they are in use.
        columns: as in `RowOptions`.
        where: as in `RowOptions`.
        format: as in `RowOptions`.
        subset: as in `RowOptions`.
        prefill: as in `RowOptions`.

    Raises:
        ValueError: for a generator or another iterator, which can be read only once, and for a table with a column that
            Arrow has no type for.
    """

    def __init__(
        self,
        records: Records,
        *,
        columns: Columns | None = None,
        where: Where | None = None,
        format: str = "auto",
        subset: str | None = None,
        prefill: Prefill = "error",
    ) -> None:
        self.rows = RecordRows(records)
        self.options = RowOptions(columns, where, format, subset, prefill)

    def fingerprint(self) -> str:
        """Return a digest of what the records hold, in order, and of the options.

        The digest is of the values themselves: the fingerprint that a `datasets.Dataset` has tells how it was made.

        Raises:
            ValueError: for a value that cannot be told from another one, such as an image.
        """
        return self.options.digest("records", self.rows.digest())

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; their places are `records row 17`, counted from 0."""
        return self.options.read(iter(self.rows))


def _rows_of(records: Records) -> Iterable[Mapping[str, object]]:
    """Return the rows of a table, without what Arrow fills in; those of a `datasets.Dataset` whatever format it was
    given.
    """
    if isinstance(records, Sequence):
        return records
    if isinstance(records, ArrowStream):
        return _TableRows(_table(records))
    from datasets import Dataset  # imported here: it takes a second, and a list does without

    return _DatasetRows(records) if isinstance(records, Dataset) else records


def _table(frame: ArrowStream) -> Any:
    try:
        return pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValueError(
            f"the {type(frame).__name__} has a column of more than one type and cannot be read as a table: {error}; "
            "give its rows as they are, frame.to_dict('records')"
        ) from error


@dataclass(frozen=True)
class _TableRows:
    table: Any

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        for batch in self.table.to_batches(BATCH_ROWS):
            yield from arrow_rows(batch)


@dataclass(frozen=True)
class _DatasetRows:
    data: Dataset

    def __iter__(self) -> Iterator[Mapping[str, object]]:
        gapless = without_gaps(self.data.features.arrow_schema)
        for row in self.data.with_format(None):
            yield gapless(cast(Raw, row))


def _name(place: int) -> str:
    return f"records row {place}"


def _record(place: int, record: object) -> Record | BadRow:
    try:
        raw = _plain(record)
    except RowError as error:
        return BadRow(_name(place), error.reason, error.detail)
    if isinstance(raw, dict):
        fields = cast(Raw, raw)
        return Record(_name(place), TableRow(fields, record.doubts) if isinstance(record, TableRow) else fields)
    return BadRow(_name(place), WRONG_TYPE, f"a row must be a mapping from field to value, found {shown(record)}")


def _plain(value: object, depth: int = 0) -> object:
    """Return a value as JSON would give it back: mappings are dicts with text for keys, sequences are lists."""
    if isinstance(value, str | bytes):
        return value
    if depth > MAX_DEPTH:
        raise RowError(TOO_LARGE, f"the row is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return {str(name): _plain(item, depth + 1) for name, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), depth) if isinstance(value, np.ndarray) else value.item()
    if isinstance(value, Sequence):
        return [_plain(item, depth + 1) for item in cast(Sequence[object], value)]
    return value


def _repeatable(value: object) -> str:
    """Return Python's text of a value that a table may hold and JSON cannot write: the same in every process."""
    if isinstance(value, bytes | date | time | timedelta | Decimal | UUID):
        return repr(value)
    raise TypeError(f"holds a {type(value).__name__}, {shown(value)}, which has no digest")
