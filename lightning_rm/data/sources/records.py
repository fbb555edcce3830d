"""Records: preference pairs that are in memory, such as a list of dicts or a `datasets.Dataset`. It knows no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import cast

import numpy as np

from lightning_rm.data.formats.fields import WRONG_TYPE, Columns, Raw, shown
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.options import RowOptions, Where
from lightning_rm.data.sources.readers import Record

Records = Iterable[Mapping[str, object]]


class RecordSource:
    """Pairs from rows in memory, read as the rows of a file are.

    Tuples and arrays are lists here, and any mapping is an object: the pairs are those of a file with the same rows.

    Args:
        records: a mapping from field to value each: a list of dicts, a `datasets.Dataset`, or whatever else can be read
            again and again. They are not copied; do not change them while they are in use.
        columns: as in `RowOptions`.
        where: as in `RowOptions`.
        format: as in `RowOptions`.
        subset: as in `RowOptions`.

    Raises:
        ValueError: for a generator or another iterator, which can be read only once.
    """

    def __init__(
        self,
        records: Records,
        *,
        columns: Columns | None = None,
        where: Where | None = None,
        format: str = "auto",
        subset: str | None = None,
    ) -> None:
        if isinstance(records, Iterator):
            raise ValueError(
                f"records are of the type {type(records).__name__}, which can be read only once; give a list of them, "
                "RecordSource(list(records))"
            )
        self.records = _unformatted(records)
        self.options = RowOptions(columns, where, format, subset)

    def fingerprint(self) -> str:
        """A digest of what the records hold, in order, and of the options.

        It is of the values themselves. A `datasets.Dataset` has a fingerprint of its own, which tells how it was made.

        Raises:
            ValueError: for a value that cannot be told from another one, such as an image.
        """
        contents = hashlib.sha256()
        for place, record in enumerate(self.records):
            try:
                # Keys keep their order: a chat template may write out a tool definition as it stands.
                written = json.dumps(_plain(record), default=_repeatable)
            except TypeError as error:
                raise ValueError(f"{_name(place)} {error}; leave that field out of the records") from None
            contents.update(f"{written}\n".encode())
        return self.options.digest("records", contents.hexdigest())

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """The rows in order; their places are `records row 17`, counted from 0."""
        return self.options.read(_record(place, record) for place, record in enumerate(self.records))


def _unformatted(records: Records) -> Records:
    """The same records; those of a `datasets.Dataset` as plain values, whatever format it was given."""
    if isinstance(records, Sequence):
        return records
    from datasets import Dataset  # imported here: it takes a second, and a list does without

    return cast(Records, records.with_format(None)) if isinstance(records, Dataset) else records


def _name(place: int) -> str:
    return f"records row {place}"


def _record(place: int, record: object) -> Record | BadRow:
    raw = _plain(record)
    if isinstance(raw, dict):
        return Record(_name(place), cast(Raw, raw))
    return BadRow(_name(place), WRONG_TYPE, f"a row must be a mapping from field to value, found {shown(record)}")


def _plain(value: object) -> object:
    """A value as JSON would give it back: mappings are dicts with text for keys, sequences and arrays are lists."""
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if isinstance(value, np.ndarray) else value.item()
    if isinstance(value, Sequence):
        return [_plain(item) for item in cast(Sequence[object], value)]
    return value


def _repeatable(value: object) -> str:
    """What JSON cannot write and a table may hold, as the text that Python gives it: the same in every process."""
    if isinstance(value, bytes | date | time | timedelta | Decimal):
        return repr(value)
    raise TypeError(f"holds a {type(value).__name__}, {shown(value)}, which has no digest")
