"""Rows of Arrow tables without what Arrow fills in: Parquet, `datasets`, data frames.

In Arrow each struct of a column has the fields of all of them; where a row lacks a key there is a null. Templates would
write those nulls into the definitions of tools and the arguments of calls. Nobody can tell for sure what was null
and what was missing, so this is the rule. A null is a gap where the field has a type: another row has a value there. A
field without a type is null wherever it was written: it stays in a struct that has no gap, and a schema's `default` or
`const` stays in any. Rows in which the rule had to decide on one of these, or on an argument, say so, and are counted.
It knows no format and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from pyarrow import types

from lightning_rm.data.formats.fields import Raw, TableRow

Filter = Callable[[object, set[str]], object]
"""From a value to one without gaps; it adds the keys that it had to decide on to the set."""

NULL_MEANS = frozenset({"default", "const"})
"""Keywords of JSON Schema that say something by being null."""

LISTS = (
    *(types.is_list, types.is_large_list, types.is_fixed_size_list),
    *(types.is_list_view, types.is_large_list_view),
)
"""Tell a type that has lists for values."""

ARGUMENTS = frozenset({"arguments", "chat_template_kwargs"})
"""Fields in which any key may say something by being null."""


def arrow_rows(batch: Any) -> Iterator[Raw]:
    """Yield the rows of a pyarrow table or record batch as plain values, without nulls that stand for missing keys.

    Raises:
        ValueError: for a map with a key that stands in it twice.
    """
    gapless = without_gaps(batch.schema)
    try:
        rows = batch.to_pylist(maps_as_pydicts="strict")
    except KeyError as error:
        raise ValueError(f"a map holds a key twice, and only one can be meant: {error.args[0]}") from error
    for row in rows:
        yield gapless(row)


def without_gaps(schema: Any) -> Callable[[Raw], Raw]:
    """Return a function that takes the nulls that stand for missing keys out of rows of a pyarrow schema.

    Null fields of a row itself stay: readers take them for missing.
    """
    filters = {
        field.name: found for field in schema if (found := _filter(field.type, field.name in ARGUMENTS)) is not None
    }

    def gapless(row: Raw) -> Raw:
        doubts = set[str]()
        found = {name: filters[name](value, doubts) if name in filters else value for name, value in row.items()}
        return TableRow(found, sorted(doubts)) if doubts else found

    return gapless


def _filter(kind: Any, in_arguments: bool) -> Filter | None:
    """Return what to do with the values of a type, in a call's arguments or not; None where nothing has to be done."""
    if types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return _of_struct(
            {
                field.name: (types.is_null(field.type), _filter(field.type, in_arguments or field.name in ARGUMENTS))
                for field in fields
            },
            in_arguments,
        )
    if any(is_of(kind) for is_of in LISTS):
        return _of_list(_filter(kind.value_type, in_arguments))
    if types.is_map(kind):
        return _of_map(_filter(kind.item_type, in_arguments))
    return None


def _of_struct(fields: Mapping[str, tuple[bool, Filter | None]], in_arguments: bool) -> Filter:
    typed = [name for name, (is_null, _) in fields.items() if not is_null]

    def gapless(value: object, doubts: set[str]) -> object:
        if not isinstance(value, Mapping):  # null, or what a data set decodes it to
            return value
        row = cast(Raw, value)
        has_gaps = any(row.get(name) is None for name in typed)
        found: dict[str, object] = {}
        for name, item in row.items():
            is_null, inner = fields.get(name, (True, None))
            if item is not None or (is_null and (name in NULL_MEANS or not has_gaps)):
                found[name] = item if inner is None else inner(item, doubts)
            if item is None and (in_arguments or name in NULL_MEANS) and (has_gaps or not is_null):
                doubts.add(name)
        return found

    return gapless


def _of_list(inner: Filter | None) -> Filter | None:
    if inner is None:
        return None

    def gapless(value: object, doubts: set[str]) -> object:
        if not isinstance(value, list):
            return value
        return [inner(item, doubts) for item in cast(Sequence[object], value)]

    return gapless


def _of_map(inner: Filter | None) -> Filter | None:
    """A map has the keys that were written in each row, but what they lead to may be structs."""
    if inner is None:
        return None

    def gapless(value: object, doubts: set[str]) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: inner(item, doubts) for name, item in cast(Raw, value).items()}

    return gapless
