"""Writes preference pairs, and other rows, as JSON lines and names their contents by a digest. It knows no data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Pair = Mapping[str, object]
"""One line of the file: `id`, `prompt_id`, `prompt` (messages), `chosen` and `rejected` (text), and further fields."""


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def prompt_id(prompt: Sequence[Mapping[str, str]]) -> str:
    """Twelve hex digits that name a prompt: equal prompts have equal names."""
    return hashlib.sha1(json.dumps(prompt, ensure_ascii=False).encode()).hexdigest()[:12]


def digest(rows: Sequence[Mapping[str, object]], keys: Sequence[str]) -> str:
    """Sixteen hex digits over what all rows have under these keys, whatever the order of the rows."""
    lines = sorted(json.dumps([row[key] for key in keys]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def write(
    path: Path,
    rows: Sequence[Mapping[str, object]],
    expected: str,
    *,
    what: str = "pairs",
    keys: Sequence[str] = ("id", "prompt", "chosen", "rejected"),
) -> None:
    """Writes the rows, one a line, and says how many; exits with an error where their digest is not the expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    found = digest(rows, keys)
    print(f"{path}: {len(rows):,} {what}, digest {found}")
    if found != expected:
        raise SystemExit(
            f"{path}: expected digest {expected}, found {found}. The source files differ from those named."
        )
