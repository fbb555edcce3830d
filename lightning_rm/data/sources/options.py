"""Options that every source takes: how to read a row, and which rows to keep. This file knows no file and no hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from lightning_rm.data.formats.columns import check_options
from lightning_rm.data.formats.fields import Columns, lookup, shown
from lightning_rm.data.formats.pairs import PARSER_VERSION, parse_row
from lightning_rm.data.formats.responses import Prefill, check_prefill
from lightning_rm.data.rows import BY_WHERE, BadRow, PairRow
from lightning_rm.data.sources.readers import Record
from lightning_rm.digests import digest

T = TypeVar("T")
Where = Mapping[str, object]


class RowOptions:
    """What every source takes: how to read a row, and which rows to keep.

    Args:
        columns: field -> its name in the data, or a dotted path to it (`{label: gpt35_agrees}`, `{prompt: info.post}`);
            None hides a field of that name.
        where: field (or dotted path) -> a value or a list of values; rows with another value, or none, are left out
            and counted as such.
        format: one of `published.FORMATS`, or `auto` to tell it row by row.
        subset: the subset of every row, instead of its own.
        prefill: a prompt that ends with the assistant's turn is an `error`, or each response is to `continue` it.

    Raises:
        ValueError: for a format or a column that no row could have.
    """

    def __init__(
        self,
        columns: Columns | None,
        where: Where | None,
        format: str,
        subset: str | None,
        prefill: Prefill = "error",
    ) -> None:
        self.columns = given_mapping("columns", columns)
        check_options(format, self.columns)
        self.where = {field: _values(value) for field, value in given_mapping("where", where).items()}
        self.format = format
        self.subset = subset
        check_prefill(prefill)
        self.prefill: Prefill = prefill

    def digest(self, kind: str, content: object) -> str:
        """Return the fingerprint of some content read with these options."""
        return digest(
            [kind, PARSER_VERSION, self.columns, self.where, self.format, self.subset, self.prefill, content], 64
        )

    def read(self, records: Iterable[Record | BadRow]) -> Iterator[PairRow | BadRow]:
        """Yield every record as a pair, or as what is wrong with it.

        Raises:
            ValueError: at the end, if `where` names a field that no row had.
        """
        unseen = {field for field, values in self.where.items() if None not in values}
        seen = set[str]()
        for record in records:
            if isinstance(record, BadRow):
                yield record
                continue
            raw = record.raw
            seen.update(raw)
            unseen -= {field for field in unseen if lookup(raw, field) is not None}
            yield self.parse(record)
        if seen and unseen:
            raise ValueError(f"where names {min(unseen)!r}, which no row has; the fields are {', '.join(sorted(seen))}")

    def parse(self, record: Record) -> PairRow | BadRow:
        """Return a record as a pair, or as what is wrong with it; one that `where` leaves out is a `BadRow` too."""
        origin, raw = record
        if field := next((field for field in self.where if lookup(raw, field) not in self.where[field]), None):
            return BadRow(origin, BY_WHERE, f"{field} is {shown(lookup(raw, field))}")
        return parse_row(
            raw, origin, format=self.format, columns=self.columns, subset=self.subset, prefill=self.prefill
        )


def given_mapping(name: str, given: Mapping[str, T] | None) -> dict[str, T]:
    """Return a mapping that a user gives, or nothing for None.

    Raises:
        ValueError: if it is none, such as a list or a text.
    """
    if given is not None and not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's
        raise ValueError(f"{name}={given!r}; give a mapping, {name}={{FIELD: VALUE}}")
    return dict(given or {})


def _values(value: object) -> list[object]:
    """Return the values that `where` accepts, from one or a list."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(cast(Sequence[object], value))
    return [value]
