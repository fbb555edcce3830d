"""Rows of a Parquet file within the bounds of `limits`: a file of a kilobyte can say that it holds terabytes.

A text that stands in many rows is written once, in a dictionary, and a long run of it takes a few bytes. So texts are
read as dictionaries, a row's size is counted before it is made, and one that is too large is refused. Arrow makes no
dictionaries of bytes of a fixed size: what these come to is known from the file's own account of them. This file knows
tables; what a row means, and what Arrow fills in, is not its business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from lightning_rm.data.formats.fields import TOO_LARGE, Raw, RowError
from lightning_rm.data.formats.limits import (
    FREE_EXPANSION_BYTES,
    MAX_EXPANSION,
    MAX_LINE_BYTES,
    MAX_RUN_VALUES,
    MIB,
)
from lightning_rm.data.sources.arrow import arrow_rows
from lightning_rm.parquet_files import open_parquet

BATCH_ROWS = 1000
"""Rows that are decoded at a time; their texts still stand in dictionaries."""

MADE_BYTES = 64 * MIB
"""The most bytes of rows that are made from these at a time."""

ITEM_BYTES = 8
"""The bytes counted for a number, and for an item of a list beside what it holds."""

LISTS = (
    (types.is_list, pa.list_),
    (types.is_large_list, pa.large_list),
    (types.is_list_view, pa.list_view),
    (types.is_large_list_view, pa.large_list_view),
)
"""Tell a type of lists of any length, and make one."""

Sizes = NDArray[np.int64]


def parquet_rows(path: Path | BinaryIO, groups: Sequence[int] | None = None) -> Iterator[Raw | RowError]:
    """Yield the rows of a file in order; an error in the place of one that is too large.

    Args:
        path: the file, or one that is open.
        groups: numbers of the row groups to read; None reads all.

    Raises:
        ValueError, ArrowException, OSError: as `parquet_tables`.
    """
    for piece in parquet_tables(path, groups):
        if isinstance(piece, RowError):
            yield piece
        else:
            yield from arrow_rows(piece)


def parquet_tables(path: Path | BinaryIO, groups: Sequence[int] | None = None) -> Iterator[Any]:
    """Yield the rows of a file in order, in tables of as many as are made together; an error for one that is too large.

    Columns have the file's types, but for views, of which Arrow makes none from dictionaries: views of texts become
    plain texts, and a column with views of lists stays as it is read, its texts in dictionaries.

    Args:
        path: the file, or one that is open.
        groups: numbers of the row groups to read; None reads all.

    Raises:
        ValueError: for a row group that unpacks without end, or holds more values than rows could need.
        ArrowException, OSError: for a file that is damaged.
    """
    with open_parquet(path) as plain:
        schema, texts = plain.schema_arrow, _texts(plain.schema)
        numbers = range(plain.metadata.num_row_groups) if groups is None else groups
        for number in numbers:
            _check_group(plain.schema, plain.metadata.row_group(number))
    with open_parquet(path, read_dictionary=texts) as table:
        both = zip(table.schema_arrow, schema, strict=True)
        fields = [read if _has_list_views(read.type) else _plain(field) for read, field in both]
        made = pa.schema(fields, schema.metadata)
        for number in numbers:  # a batch of two groups has two dictionaries: Arrow cannot nest them in lists
            for batch in table.iter_batches(BATCH_ROWS, row_groups=[number]):
                yield from _pieces(pa.Table.from_batches([batch]), made)


def _texts(schema: Any) -> list[str]:
    """Return the paths of the columns that hold texts or bytes, which may be read as dictionaries."""
    columns = [schema.column(place) for place in range(len(schema))]
    return [
        column.path
        for column in columns
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type not in ("DECIMAL", "NULL")
    ]


def _plain(field: Any) -> Any:
    """Return a field of plain texts where its own are views."""
    return field.with_type(plain_type(field.type))


def plain_type(kind: Any) -> Any:
    """Return a type of plain texts in place of views of texts, however deep they are in it."""
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_struct(kind):
        return pa.struct([_plain(kind.field(place)) for place in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_plain(kind.key_field), _plain(kind.item_field), kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_field), kind.list_size)
    for is_of, list_of in LISTS:
        if is_of(kind):
            return list_of(_plain(kind.value_field))
    return kind


def _has_list_views(kind: Any) -> bool:
    if types.is_struct(kind):
        return any(_has_list_views(kind.field(place).type) for place in range(kind.num_fields))
    if types.is_map(kind):
        return _has_list_views(kind.item_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _has_list_views(kind.value_type)
    return types.is_list_view(kind) or types.is_large_list_view(kind)


def _check_group(schema: Any, group: Any) -> None:
    columns = [group.column(place) for place in range(group.num_columns)]
    packed = sum(column.total_compressed_size for column in columns)
    widths = [schema.column(place).length for place in range(group.num_columns)]  # 0 but of bytes of a fixed size
    unpacked = sum(
        max(column.total_uncompressed_size, column.num_values * width)
        for column, width in zip(columns, widths, strict=True)
    )
    if unpacked > FREE_EXPANSION_BYTES + MAX_EXPANSION * packed:
        raise ValueError(f"a row group unpacks to more than {MAX_EXPANSION} times its size, which no text does")
    for place, column in enumerate(columns):
        in_lists = schema.column(place).max_repetition_level > 0
        if in_lists and column.num_values > max(MAX_RUN_VALUES, column.total_uncompressed_size):
            raise ValueError(
                f"{column.path_in_schema} has {column.num_values:,} items in the lists of a row group, "
                "less than a byte for each; write smaller row groups (row_group_size=10000)"
            )


def _pieces(batch: Any, schema: Any) -> Iterator[Any]:
    """Yield a batch in pieces that `MADE_BYTES` hold, in the types of a schema."""
    sizes: Sizes = sum((_sizes(column) for column in batch.columns), np.zeros(batch.num_rows, np.int64))
    if sizes.sum() <= MADE_BYTES:
        yield batch.cast(schema)
        return
    start = 0
    while start < batch.num_rows:
        if sizes[start] > MAX_LINE_BYTES:
            yield RowError(
                TOO_LARGE,
                f"the row has {sizes[start] // MIB:,} MiB, and none of more than {MAX_LINE_BYTES // MIB} MiB is read",
            )
            start += 1
            continue
        together = np.cumsum(sizes[start:])
        fits = (together <= MADE_BYTES) & (sizes[start:] <= MAX_LINE_BYTES)
        num_rows = len(fits) if fits.all() else max(1, int(fits.argmin()))
        piece = batch.slice(start, num_rows)
        yield piece.cast(schema)
        start += num_rows


def _sizes(column: Any) -> Sizes:
    """Return (R,), about how many bytes a column's values take, each with all that it holds."""
    parts = [_sizes_of(chunk) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _sizes_of(array: Any) -> Sizes:
    kind = array.type
    if types.is_dictionary(kind):
        lengths = np.append(_sizes_of(array.dictionary), 0)  # the last one is a null's
        return lengths[pc.fill_null(array.indices, len(lengths) - 1).to_numpy(zero_copy_only=False)]
    if types.is_struct(kind):
        fields = (_sizes_of(array.field(place)) for place in range(kind.num_fields))
        return sum(fields, np.zeros(len(array), np.int64))
    if types.is_map(kind):
        return _of_lists(array, _sizes_of(array.keys) + _sizes_of(array.items))
    if types.is_list(kind) or types.is_large_list(kind):
        return _of_lists(array, _sizes_of(array.values))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        ends = np.append(0, np.cumsum(_sizes_of(array.values) + ITEM_BYTES))
        offsets = array.offsets.to_numpy()
        return ends[offsets + array.sizes.to_numpy()] - ends[offsets]
    if types.is_fixed_size_list(kind):
        width = kind.list_size
        items = array.values.slice(array.offset * width, len(array) * width)
        return (_sizes_of(items) + ITEM_BYTES).reshape(len(array), width).sum(axis=1)
    if types.is_binary(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        lengths = pc.call_function("binary_length", [array])
        return pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    width = kind.byte_width if types.is_fixed_size_binary(kind) else ITEM_BYTES
    return np.full(len(array), width, np.int64)


def _of_lists(array: Any, items: Sizes) -> Sizes:
    """Return the sizes of lists, each of which holds a run of items."""
    ends = np.append(0, np.cumsum(items + ITEM_BYTES))
    offsets = array.offsets.to_numpy()
    return ends[offsets[1:]] - ends[offsets[:-1]]
