"""Files of annotated pairs: our own Parquet, the layout of the paper's published data, and rows that TRL reads.

Each is written beside its place and renamed into it. This file knows rows and numbers; no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_rm.annotation.votes import Votes
from lightning_rm.data.published import STRENGTH_MEAN, STRENGTH_STD
from lightning_rm.data.rows import Message, PairRow, Source
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
    strength = Strength.of_votes(votes.votes)
    schema = SCHEMA.with_metadata({VOTERS: json.dumps(votes.voters)})
    draft = _draft(path)
    try:
        with pq.ParquetWriter(draft, schema) as writer:
            for places, chunk in _annotated(source, votes):
                columns = [_columns(row, i, strength, votes) for i, row in zip(places, chunk, strict=True)]
                writer.write_table(pa.Table.from_pylist(columns, schema=schema))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return strength


def write_fnlp(source: Source, votes: Votes, path: Path) -> None:
    """Write annotated pairs as fnlp/hh-rlhf-strength-cleaned lays them out (arXiv 2401.06080): one JSON array.

    `chosen` and `rejected` are lists of turns, the user's first; `GPT4 label` is 1, 0 or -1 for unknown.

    Raises:
        ValueError: if a conversation has a turn that the layout has no place for.
    """
    strength = Strength.of_votes(votes.votes)

    def rows() -> Iterator[Mapping[str, Any]]:
        for places, chunk in _annotated(source, votes):
            for i, row in zip(places, chunk, strict=True):
                chosen, rejected = _said(votes.chosen[i]), _said(votes.rejected[i])
                yield {
                    "chosen": _alternating((*row.prompt, *row.chosen), row.id),
                    "rejected": _alternating((*row.prompt, *row.rejected), row.id),
                    "GPT4 label": -1 if row.clean is None else int(row.clean),
                    STRENGTH_MEAN: float(strength.mean[i]),
                    STRENGTH_STD: float(strength.std[i]),
                    "chosen_score_list": chosen,
                    "rejected_score_list": rejected,
                }

    _write_lines(path, rows(), start="[\n", between=",\n", end="\n]\n")


def write_trl(source: Source, votes: Votes, path: Path) -> None:
    """Write annotated pairs as JSONL for TRL's RewardTrainer: `prompt`, `chosen`, `rejected` as turns, and `margin`.

    The margin is the strength, signed.
    """
    strength = Strength.of_votes(votes.votes)

    def rows() -> Iterator[Mapping[str, Any]]:
        for places, chunk in _annotated(source, votes):
            for i, row in zip(places, chunk, strict=True):
                turns = {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
                yield {name: list(value) for name, value in turns.items()} | {"margin": float(strength.mean[i])}

    _write_lines(path, rows(), end="\n")


def _annotated(source: Source, votes: Votes) -> Iterator[tuple[list[int], list[PairRow]]]:
    """The rows that were scored, in chunks, with their place among the pairs."""
    places: list[int] = []
    chunk: list[PairRow] = []
    pair_of = {int(row): place for place, row in enumerate(votes.pairs.source_row)}
    for number, row in enumerate(source):
        if number in pair_of and isinstance(row, PairRow):
            places.append(pair_of[number])
            chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            yield places, chunk
            places, chunk = [], []
    if chunk:
        yield places, chunk


def _columns(row: PairRow, i: int, strength: Strength, votes: Votes) -> dict[str, Any]:
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
        "strength_mean": strength.mean[i],
        "strength_std": strength.std[i],
        "strength_quantile": strength.quantile[i],
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
    draft = _draft(path)
    try:
        with draft.open("w") as file:
            for number, row in enumerate(rows):
                file.write((between if number else start) + json.dumps(row, ensure_ascii=False))
            file.write(end)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _draft(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
