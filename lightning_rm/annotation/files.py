"""The file of annotated pairs: Parquet, one row per pair, with everything that the data says of the pair and its votes.

It is written under another name and then renamed. `layouts` writes what other trainers read. This file knows rows and
numbers; no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from lightning_rm.annotation.votes import NO_PAIRS, Votes, kept_rows, said
from lightning_rm.data.rows import GroupRow, PairRow, Source
from lightning_rm.data.store.pair_rows import CHUNK_ROWS, PAIR_COLUMNS, OtherColumns, pair_columns
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.drafts import draft_of
from lightning_rm.parquet_files import parquet_writer
from lightning_rm.strength import Strength

SCHEMA = pa.schema(
    [
        *PAIR_COLUMNS,
        ("strength_mean", pa.float64()),
        ("strength_std", pa.float64()),
        ("strength_quantile", pa.float64()),
        ("votes", pa.list_(pa.float64())),
        ("chosen_rewards", pa.list_(pa.float32())),
        ("rejected_rewards", pa.list_(pa.float32())),
    ]
)
"""One row a pair. Votes and rewards are those of the voters that have a say on it, in the voters' order.

Behind these stand the fields of the data that nothing here reads, as its rows have them (`pair_rows.OtherColumns`).
Votes, strengths and rewards of an earlier annotation go.
"""

VOTED = ("strength_quantile", "votes", "chosen_rewards", "rejected_rewards")
"""Columns that annotation writes, and of which a row may have its own without having been annotated."""

VOTERS = b"lightning_rm.voters"
"""The file's metadata has the voters' names under this key, as JSON."""


class AnnotatedFormat:
    """The schema of a file of annotated pairs, and its rows.

    Args:
        votes: of the pairs.
        others: the further fields of these rows.
    """

    def __init__(self, votes: Votes, others: OtherColumns) -> None:
        self.votes = votes
        self.others_of = others.of
        self.schema = pa.schema([*SCHEMA, *others.fields()]).with_metadata({VOTERS: json.dumps(votes.voters)})


def check_rows(source: Iterable[object]) -> None:
    """Check that voters can vote on rows, good and bad, before any is trained on them.

    Raises:
        ValueError: for a row of scored responses, and as `check_columns` does, whether or not the pair will be kept.
    """
    for row in source:
        if isinstance(row, GroupRow):
            raise ValueError(f"{row.place}: {NO_PAIRS}")
        if isinstance(row, PairRow):
            _check_fields(row)


def check_columns(source: Source, pairs: PairDataset) -> None:
    """Raise ValueError for a pair that was never annotated and has a field under a name that votes are written to."""
    for _, row in kept_rows(source, pairs):
        _check_fields(row)


def _check_fields(row: PairRow) -> None:
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
    others = OtherColumns(SCHEMA.names)
    for _, row in kept_rows(source, votes.pairs):
        others.note(row)
    form = AnnotatedFormat(votes, others)
    rows = kept_rows(source, votes.pairs)
    with draft_of(path) as draft, parquet_writer(draft, form.schema) as writer:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            columns = [columns_of(row, i, votes) | form.others_of(row) for i, row in chunk]
            writer.write_table(pa.Table.from_pylist(columns, schema=form.schema))
    return votes.strength


def columns_of(row: PairRow, i: int = 0, votes: Votes | None = None) -> dict[str, Any]:
    """Return a row of `SCHEMA`.

    Args:
        row: the pair.
        i: its place among the pairs that were voted on.
        votes: on these pairs; None for a row without votes.
    """
    told = pair_columns(row)
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
