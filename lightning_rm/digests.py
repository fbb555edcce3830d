"""Digests: short names for values, files and bytes, the same on any machine and in any year.

Caches, splits and drafts are found by them: what a function gives for a value never changes. It knows values and bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

MAX_PLAIN = 40
"""Letters of a name that stay in a file's: file systems count up to four bytes for each, and 255 in all."""


def digest(value: object, num_digits: int = 12) -> str:
    """Give the first hex digits of the SHA-256 of a JSON-like value."""
    written = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:num_digits]


def fingerprint(**parts: object) -> str:
    """Give 32 hex digits that change with any part; parts are whatever JSON can write, half surrogates among them."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_name(name: str) -> str:
    """Give a name as a file's or a folder's: `llmbar` as it is, `runs/a` as `runs_a-5d911391`.

    Names that files cannot have, or not everywhere, or that are long, bring a digest: no two names become one.
    """
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._")[-MAX_PLAIN:].lstrip("._") or "model"
    return plain if plain == name else f"{plain}-{fingerprint(name=name)[:8]}"


def key_digest(*key: object) -> str:
    """Give 64 hex digits that name a tuple of plain values: the SHA-256 of their `repr`s."""
    return hashlib.sha256("\n".join(map(repr, key)).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """Give the SHA-256 of a file's bytes, in hex digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def chunks_digest(chunks: Iterable[bytes | memoryview]) -> str:
    """Give the SHA-256 of bytes that come piece by piece, in hex digits; where they are cut does not matter."""
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """Give 16 hex digits that change with the bytes of files, in the order given."""
    return chunks_digest(bytes.fromhex(sha256_of(path)) for path in paths)[:16]


FileState = tuple[str, int, int, int]
"""A file's path, length in bytes, time of change in nanoseconds, and number on its disk."""


def state_of(path: Path) -> FileState:
    """Give what is another where a file was written again or replaced, without reading it."""
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino


def check_unchanged(
    name: object, now: object, before: object, done: str = "scored, so that rewards and rows do not go together"
) -> None:
    """Check that data is what it was when something with it began, before what was made of it is kept.

    Args:
        name: what to call it.
        now: its digest, or the states of its files.
        before: the same when that began.
        done: what was done to it meanwhile.

    Raises:
        ValueError: if it has changed.
    """
    if now != before:
        raise ValueError(f"{name} has changed while it was {done}; start again once it stays as it is")


def short_key(*parts: bytes, num_bytes: int = 16) -> bytes:
    """Give a few bytes that stand for these bytes, so that very many of them fit in memory; they look random."""
    found = hashlib.blake2b(digest_size=num_bytes)
    for part in parts:
        found.update(part)
    return found.digest()
