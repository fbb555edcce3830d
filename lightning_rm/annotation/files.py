"""Files of annotated pairs: our own Parquet, the layout of the paper's published data, and rows that TRL reads.

Each is written beside its place and renamed into it. This file knows rows and numbers; no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_rm.annotation.votes import Votes
from lightning_rm.data.formats.published import CHOSEN_SCORES, REJECTED_SCORES, STRENGTH_MEAN, STRENGTH_STD
from lightning_rm.data.rows import Message, PairRow, Source
from lightning_rm.data.store.cache import draft_of
from lightning_rm.strength import Strength

CHUNK_ROWS = 1000
"""Rows of a Parquet row group: as many are in memory at a time."""

TURNS = pa.list_(pa.struct([(name, pa.string()) for name in ("role", "content", "tool_calls", "tool_call_id", "name")]))
"""Turns; the calls of tools are JSON, since their shapes differ from turn to turn."""

SCHEMA = pa.schema(
    [
        ("prompt", TURNS),
        ("chosen", TURNS),
        ("rejected", TURNS),
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        ("subset", pa.string()),
        ("label", pa.float64()),
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
"""One row a pair. Votes and rewards are those of the voters that have a say on it, in the voters' order."""

VOTERS = b"lightning_rm.voters"
"""The file's metadata has the voters' names under this key, as JSON."""


def write_parquet(source: Source, votes: Votes, path: Path) -> Strength:
    """Write annotated pairs as Parquet: a data source as it stands.

    Args:
        source: the rows that were annotated.
        votes: what the voters said of them.
        path: of the file.

    Returns:
        The strengths, in the order of the pairs.
    """
    schema = SCHEMA.with_metadata({VOTERS: json.dumps(votes.voters)})
    rows = _annotated(source, votes)
    with draft_of(path) as draft, pq.ParquetWriter(draft, schema) as writer:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            columns = [_columns(row, i, votes) for i, row in chunk]
            writer.write_table(pa.Table.from_pylist(columns, schema=schema))
    return votes.strength


def write_fnlp(source: Source, votes: Votes, path: Path) -> None:
    """Write annotated pairs as fnlp/hh-rlhf-strength-cleaned lays them out (arXiv 2401.06080): one JSON array.

    `chosen` and `rejected` are lists of turns, the user's first; `GPT4 label` is 1, 0 or -1 for unknown.

    Raises:
        ValueError: if a conversation has a turn that the layout has no place for.
    """
    rows = (
        {
            "chosen": _alternating((*row.prompt, *row.chosen), row.id),
            "rejected": _alternating((*row.prompt, *row.rejected), row.id),
            "GPT4 label": -1 if row.clean is None else int(row.clean),
            STRENGTH_MEAN: float(votes.strength.mean[i]),
            STRENGTH_STD: float(votes.strength.std[i]),
            CHOSEN_SCORES[0]: _said(votes.chosen[i]),
            REJECTED_SCORES[0]: _said(votes.rejected[i]),
        }
        for i, row in _annotated(source, votes)
    )
    _write_lines(path, rows, start="[\n", between=",\n", end="\n]\n")


def write_trl(source: Source, votes: Votes, path: Path) -> None:
    """Write annotated pairs as JSONL for TRL's RewardTrainer: `prompt`, `chosen`, `rejected` as turns, and `margin`.

    The margin is the strength, signed.
    """
    rows = (
        {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected, "margin": float(votes.strength.mean[i])}
        for i, row in _annotated(source, votes)
    )
    _write_lines(path, rows, end="\n")


def _annotated(source: Source, votes: Votes) -> Iterator[tuple[int, PairRow]]:
    """The rows that were scored, each with its place among the pairs."""
    pair_of = {int(row): place for place, row in enumerate(votes.pairs.source_row)}
    for number, row in enumerate(source):
        if number in pair_of and isinstance(row, PairRow):
            yield pair_of[number], row


def _columns(row: PairRow, i: int, votes: Votes) -> dict[str, Any]:
    return {
        "prompt": [_plain(turn) for turn in row.prompt],
        "chosen": [_plain(turn) for turn in row.chosen],
        "rejected": [_plain(turn) for turn in row.rejected],
        "id": row.id,
        "prompt_id": row.prompt_id,
        "subset": row.subset,
        "label": row.label,
        "margin": row.margin,
        "weight": row.weight,
        "gold_margin": row.gold_margin,
        "clean": row.clean,
        "tools": json.dumps(row.tools) if row.tools else None,
        "chat_template_kwargs": json.dumps(row.chat_template_kwargs) if row.chat_template_kwargs else None,
        "strength_mean": votes.strength.mean[i],
        "strength_std": votes.strength.std[i],
        "strength_quantile": votes.strength.quantile[i],
        "votes": _said(votes.votes[i]),
        "chosen_rewards": _said(votes.chosen[i]),
        "rejected_rewards": _said(votes.rejected[i]),
    }


def _plain(turn: Message) -> dict[str, str | None]:
    calls = turn.get("tool_calls")
    return {
        "role": turn["role"],
        "content": turn["content"],
        "tool_calls": json.dumps(calls) if calls else None,
        "tool_call_id": turn.get("tool_call_id"),
        "name": turn.get("name"),
    }


def _said(values: NDArray[np.float64]) -> list[float]:
    """The numbers of the voters that have a say."""
    return values[~np.isnan(values)].tolist()


def _alternating(turns: Sequence[Message], name: str) -> list[str]:
    expected = [("user", "assistant")[place % 2] for place in range(len(turns))]
    if [turn["role"] for turn in turns] != expected:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ValueError(f"pair {name} has the turns {roles}; the layout knows user and assistant in turn")
    return [turn["content"] for turn in turns]


def _write_lines(
    path: Path, rows: Iterator[Mapping[str, Any]], start: str = "", between: str = "\n", end: str = ""
) -> None:
    with draft_of(path) as draft, draft.open("w") as file:
        for number, row in enumerate(rows):
            file.write((between if number else start) + json.dumps(row, ensure_ascii=False))
        file.write(end)
