"""Prompts that a benchmark asks as well: runs of 13 words that both have. It knows texts and files; no votes.

13 words in a row are the measure of GPT-3's paper (arXiv 2005.14165, appendix C). A prompt of fewer words is compared
whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from lightning_rm.data.formats.asked import PROMPT_FIELDS, SYSTEM_FIELDS
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.readers import find_files, read_file

ASKED = ("prompt", *(name for name in PROMPT_FIELDS if name not in SYSTEM_FIELDS))
"""Fields of a benchmark's rows that are looked at; what a system turn says stands in many prompts."""

NUM_WORDS = 13

MIN_WORDS = 5
"""A prompt of fewer words, such as "hello there", is compared with none."""

WORD = re.compile(r"\w+")


class Benchmarks:
    """The prompts of benchmarks, in local files.

    Args:
        files: name -> a path, a glob or a list of them, of any kind that is read as data. Prompts are what stands in
            the fields that usually carry one (`prompt`, `question`, `instruction`, ...), texts or lists of messages.

    Raises:
        ValueError: if a file cannot be read, or has no prompt.
    """

    def __init__(self, files: Mapping[str, str | Path | Sequence[str | Path]]) -> None:
        self._of: dict[int, str] = {}
        for name, paths in files.items():
            has_prompts = False
            for prompt in _read_prompts(name, paths):
                has_prompts = True
                for gram in _grams(prompt):
                    self._of.setdefault(gram, name)
            if not has_prompts:
                raise ValueError(f"benchmarks.{name}: no row of {paths} has a prompt (one of {', '.join(ASKED)})")

    def holds(self, prompt: str) -> str | None:
        """Return the benchmark that a prompt shares 13 words in a row with; None for none."""
        return next((self._of[gram] for gram in _grams(prompt) if gram in self._of), None)


def _read_prompts(name: str, paths: str | Path | Sequence[str | Path]) -> Iterator[str]:
    """Yield the prompts of a benchmark's files.

    Raises:
        ValueError: for a row that cannot be read.
    """
    for file in find_files(paths):
        for record in read_file(file):
            if isinstance(record, BadRow):
                raise ValueError(f"benchmarks.{name}: {record.origin}: {record.reason}: {record.detail}")
            yield from _prompts(record.raw)


def _grams(text: str) -> Iterator[int]:
    words = WORD.findall(text.casefold())
    if MIN_WORDS <= len(words) < NUM_WORDS:
        yield hash((len(words), *words))
    for start in range(len(words) - NUM_WORDS + 1):
        yield hash(tuple(words[start : start + NUM_WORDS]))


def _prompts(raw: Mapping[str, object]) -> Iterator[str]:
    for name in ASKED:
        yield from _texts(raw.get(name))


def _texts(value: object) -> Iterator[str]:
    """Yield texts as they stand, and of messages what the user says."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence):
        for turn in cast(Sequence[object], value):
            if isinstance(turn, Mapping):
                said = cast(Mapping[str, object], turn)
                if said.get("role", "user") in ("user", "human") and isinstance(said.get("content"), str):
                    yield cast(str, said["content"])
