"""Pairs as rows of a Parquet file that `FileSource` reads back: all that is told of a pair, its unread fields too.

It knows rows; no voter, no weight and no model: what stands beside these columns is their writer's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, cast

import pyarrow as pa

from lightning_rm.data.formats.messages import OTHER_KEYS
from lightning_rm.data.rows import Message, PairRow

CHUNK_ROWS = 1000
"""Rows of a Parquet row group: as many are in memory at a time."""

TURN_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")

TURNS = pa.list_(pa.struct([(name, pa.string()) for name in (*TURN_KEYS, OTHER_KEYS)]))
"""Turns; the calls of tools and all other keys are JSON, since their shapes differ from turn to turn."""

PAIR_COLUMNS: Sequence[tuple[str, Any]] = (
    ("prompt", TURNS),
    ("chosen", TURNS),
    ("rejected", TURNS),
    ("id", pa.string()),
    ("prompt_id", pa.string()),
    ("subset", pa.string()),
    ("label", pa.float64()),
    ("tied", pa.bool_()),
    ("margin", pa.float64()),
    ("weight", pa.float64()),
    ("gold_margin", pa.float64()),
    ("clean", pa.bool_()),
    ("tools", pa.string()),  # JSON, as is the next: their shapes differ from row to row
    ("chat_template_kwargs", pa.string()),
)
"""The columns of `pair_columns`, and their types."""


def pair_columns(row: PairRow) -> dict[str, Any]:
    """Return what is told of a pair, but for its strength and its unread fields, by column."""
    return {
        "prompt": [_plain(turn) for turn in row.prompt],
        "chosen": [_plain(turn) for turn in row.chosen],
        "rejected": [_plain(turn) for turn in row.rejected],
        "id": row.id,
        "prompt_id": row.prompt_id,
        "subset": row.subset,
        "label": row.label,
        "tied": row.tied or None,
        "margin": row.margin,
        "weight": row.weight,
        "gold_margin": row.gold_margin,
        "clean": row.clean,
        "tools": json.dumps(row.tools) if row.tools else None,
        "chat_template_kwargs": json.dumps(row.chat_template_kwargs) if row.chat_template_kwargs else None,
    }


class OtherColumns:
    """The fields of rows that nothing here reads, and the columns that they become.

    A column of texts, of numbers, of truth values or of lists of numbers stays one, any other becomes JSON text.

    Args:
        taken: names of the columns that the file has anyway; fields of these names are left out.
    """

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = frozenset(taken)
        self._kinds: dict[str, set[Any]] = {}
        self._found: dict[str, Any] | None = None

    def note(self, row: PairRow) -> None:
        """Look at a row that will be written."""
        self._found = None
        for name, value in row.others.items():
            if name not in self._taken:
                self._kinds.setdefault(name, set()).add(_kind(value))

    def fields(self) -> list[Any]:
        """Return the columns, once every row is noted."""
        return [pa.field(_written(name), kind or pa.string()) for name, kind in self._types().items()]

    def of(self, row: PairRow) -> dict[str, Any]:
        """Return a row's fields by column."""
        return {
            _written(name): json.dumps(row.others[name], default=str) if kind is None else row.others[name]
            for name, kind in self._types().items()
            if name in row.others
        }

    def _types(self) -> dict[str, Any]:
        """Return the Arrow type of each field's column; None where it is written as JSON."""
        if self._found is not None:
            return self._found
        numbers = {pa.int64(), pa.float64()}
        self._found = {
            name: pa.float64() if found == numbers else next(iter(found)) if len(found) == 1 else None
            for name, found in self._kinds.items()
        }
        return self._found


def _kind(value: object) -> Any:
    """Return the Arrow type of a column that holds a value as it is; None where no type is as plain."""
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, list) and value and all(type(one) is float for one in cast(list[object], value)):
        return pa.list_(pa.float64())
    return pa.string() if isinstance(value, str) and _written(value) == value else None


def _written(text: str) -> str:
    """Return text without half a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(turn: Message) -> dict[str, str | None]:
    calls = turn.get("tool_calls")
    others = {key: value for key, value in turn.items() if key not in TURN_KEYS}
    return {
        "role": turn["role"],
        "content": turn["content"],
        "tool_calls": json.dumps(calls) if calls else None,
        "tool_call_id": turn.get("tool_call_id"),
        "name": turn.get("name"),
        OTHER_KEYS: json.dumps(others) if others else None,
    }
