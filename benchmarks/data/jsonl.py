"""Writes preference pairs as JSON lines and names their contents by a digest. It knows no data set."""

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


def digest(pairs: Sequence[Pair]) -> str:
    """Sixteen hex digits over id, prompt, chosen and rejected of all pairs, whatever their order."""
    lines = sorted(json.dumps([pair[key] for key in ("id", "prompt", "chosen", "rejected")]) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def write(path: Path, pairs: Sequence[Pair], expected: str) -> None:
    """Writes the pairs, one a line, and says how many; exits with an error where their digest is not the expected."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
    found = digest(pairs)
    print(f"{path}: {len(pairs):,} pairs, digest {found}")
    if found != expected:
        raise SystemExit(
            f"{path}: expected digest {expected}, found {found}. The source files differ from those named."
        )
