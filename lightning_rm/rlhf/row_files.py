"""Rows as JSONL that the data reads back: pairs by `data=jsonl`, groups of responses by `responses=jsonl`.

A file is written whole or not at all. It knows rows; no policy and no reward.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.drafts import draft_of
from lightning_rm.scoring.rows import json_line

PAIR = ("prompt", "chosen", "rejected", "id", "prompt_id")
"""The fields that every pair is written with."""


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as they are, one a line."""
    with draft_of(path) as draft, draft.open("wb") as file:
        file.writelines(json_line(row) + b"\n" for row in rows)
    return path


def write_pairs(path: Path, pairs: Iterable[PairRow], *also: str) -> Path:
    """Write pairs; `also` names fields of theirs that are written too."""
    names = (*PAIR, *also)
    return write_rows(path, ({name: getattr(pair, name) for name in names} | _template(pair) for pair in pairs))


def write_groups(path: Path, groups: Iterable[GroupRow]) -> Path:
    """Write groups of responses, with their gold rewards where they have some."""
    return write_rows(path, map(_group, groups))


def _group(row: GroupRow) -> dict[str, Any]:
    told = {"prompt": row.prompt, "responses": row.responses, "id": row.id, "prompt_id": row.prompt_id}
    return told | ({"gold": row.gold} if row.gold else {}) | _template(row)


def _template(row: GroupRow | PairRow) -> dict[str, Any]:
    """Return a row's tools and arguments for the chat template, if it has any."""
    told = {"tools": row.tools, "chat_template_kwargs": dict(row.chat_template_kwargs)}
    return {name: value for name, value in told.items() if value}
