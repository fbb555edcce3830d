"""The file of annotated pairs: Parquet, one row a pair, with all that its data says of it beside the votes.

It is written beside its place and renamed into it. What other trainers read is `layouts`'. This file knows rows and
numbers; no model.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_rm.annotation.votes import Votes, kept_rows, said
from lightning_rm.data.formats.messages import OTHER_KEYS
from lightning_rm.data.rows import Message, PairRow, Source
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.drafts import draft_of
from lightning_rm.strength import Strength

CHUNK_ROWS = 1000
"""Rows of a Parquet row group: as many are in memory at a time."""

TURN_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")

TURNS = pa.list_(pa.struct([(name, pa.string()) for name in (*TURN_KEYS, OTHER_KEYS)]))
"""Turns; the calls of tools and all other keys are JSON, since their shapes differ from turn to turn."""

SCHEMA = pa.schema(
    [
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
        ("strength_mean", pa.float64()),
        ("strength_std", pa.float64()),
        ("strength_quantile", pa.float64()),
        ("votes", pa.list_(pa.float64())),
        ("chosen_rewards", pa.list_(pa.float32())),
        ("rejected_rewards", pa.list_(pa.float32())),
    ]
)
"""One row a pair. Votes and rewards are those of the voters that have a say on it, in the voters' order.

Behind these stand the fields of the data that nothing here reads, as its rows have them: a column of texts, of numbers
or of truth values as such, any other one as JSON text. Votes, strengths and rewards of an earlier annotation go.
"""

VOTED = ("strength_quantile", "votes", "chosen_rewards", "rejected_rewards")
"""Columns that annotation writes, and of which a row may have its own without having been annotated."""

VOTERS = b"lightning_rm.voters"
"""The file's metadata has the voters' names under this key, as JSON."""


class OtherColumns:
    """The fields of rows that nothing here reads, and the columns that they become."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[Any]] = {}

    def note(self, row: PairRow) -> None:
        """Look at a row that will be written."""
        for name, value in row.others.items():
            if name not in SCHEMA.names:
                self._kinds.setdefault(name, set()).add(_kind(value))

    def types(self) -> dict[str, Any]:
        """Return the Arrow type of each field's column; None where it is written as JSON."""
        numbers = {pa.int64(), pa.float64()}
        return {
            name: pa.float64() if found == numbers else next(iter(found)) if len(found) == 1 else None
            for name, found in self._kinds.items()
        }


class AnnotatedFormat:
    """The schema of a file of annotated pairs, and its rows.

    Args:
        votes: of the pairs.
        others: which has noted every row that will be written.
    """

    def __init__(self, votes: Votes, others: OtherColumns) -> None:
        self.votes = votes
        self._others = others.types()
        fields = [pa.field(_written(name), kind or pa.string()) for name, kind in self._others.items()]
        self.schema = pa.schema([*SCHEMA, *fields]).with_metadata({VOTERS: json.dumps(votes.voters)})

    def others_of(self, row: PairRow) -> dict[str, Any]:
        """Return what stands beside `columns_of` in the columns of a row."""
        return {
            _written(name): json.dumps(row.others[name], default=str) if kind is None else row.others[name]
            for name, kind in self._others.items()
            if name in row.others
        }


def check_columns(source: Source, pairs: PairDataset) -> None:
    """Raise ValueError for a pair that was never annotated and has a field under a name that votes are written to."""
    for _, row in kept_rows(source, pairs):
        if row.strength_mean is None and (taken := [name for name in VOTED if name in row.others]):
            raise ValueError(
                f"{row.place}: the row has a field {taken[0]!r} of its own, whose place the annotation's would take; "
                "rename it, or leave it out" + (" with columns={votes: null}" if taken[0] == "votes" else "")
            )


def write_parquet(source: Source, votes: Votes, path: Path) -> Strength:
    """Write annotated pairs as Parquet: a data source as it stands.

    Args:
        source: the rows that were annotated.
        votes: what the voters said of them.
        path: of the file.

    Returns:
        The strengths, in the order of the pairs.
    """
    others = OtherColumns()
    for _, row in kept_rows(source, votes.pairs):
        others.note(row)
    form = AnnotatedFormat(votes, others)
    rows = kept_rows(source, votes.pairs)
    with draft_of(path) as draft, pq.ParquetWriter(draft, form.schema) as writer:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            columns = [columns_of(row, i, votes) | form.others_of(row) for i, row in chunk]
            writer.write_table(pa.Table.from_pylist(columns, schema=form.schema))
    return votes.strength


def _kind(value: object) -> Any:
    """Return the Arrow type of a column that holds a value as it is; None where no type is as plain."""
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return pa.float64()
    return pa.string() if isinstance(value, str) and _written(value) == value else None


def _written(text: str) -> str:
    """Return text without half a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def columns_of(row: PairRow, i: int = 0, votes: Votes | None = None) -> dict[str, Any]:
    """Return a row of `SCHEMA`.

    Args:
        row: what is told of the pair.
        i: its place among the pairs that were voted on.
        votes: on these; None for a row without.
    """
    told = {
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
    if votes is None:
        return told
    return told | {
        "strength_mean": votes.strength.mean[i],
        "strength_std": votes.strength.std[i],
        "strength_quantile": votes.strength.quantile[i],
        "votes": said(votes.votes[i]),
        "chosen_rewards": said(votes.chosen[i]),
        "rejected_rewards": said(votes.rejected[i]),
    }


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
