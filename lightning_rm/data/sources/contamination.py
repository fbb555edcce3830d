"""Prompts that a benchmark asks as well: runs of 13 words that both have; and a source without them.

13 words in a row are the measure of GPT-3's paper (arXiv 2005.14165, appendix C). A prompt of fewer words is compared
whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

from lightning_rm.data.formats.asked import PROMPT_FIELDS, SYSTEM_FIELDS
from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import BY_BENCHMARK, BadRow, Message, PairRow, Source
from lightning_rm.data.sources.files import Paths, file_digests
from lightning_rm.data.sources.readers import find_files, read_file
from lightning_rm.digests import digest

ASKED = ("prompt", "conversation_input", *(name for name in PROMPT_FIELDS if name not in SYSTEM_FIELDS))
"""Fields of a benchmark's rows that are looked at; what a system turn says stands in many prompts."""

KEY = "decontaminate"

NUM_WORDS = 13

MIN_WORDS = 5
"""A prompt of fewer words, such as "hello there", is compared with none."""

WORD = re.compile(r"\w+")

BETWEEN = "\n\n"
"""What stands between the turns of a user, who may have said few words in each."""

RULE_VERSION = 1
"""Counted up whenever another prompt could be found: what was prepared before is prepared again."""


class Benchmarks:
    """The prompts of benchmarks, in local files.

    Args:
        files: name -> a path, a glob or a list of them, of any kind that is read as data. Prompts are what stands in
            the fields that usually carry one (`prompt`, `question`, `instruction`, ...), texts or lists of messages.
        key: the setting that named them, for an error.

    Raises:
        ValueError: if a file cannot be read, or has no prompt.
    """

    def __init__(self, files: Mapping[str, Paths], key: str = "benchmarks") -> None:
        self._of: dict[int, str] = {}
        for name, paths in files.items():
            has_prompts = False
            for prompt in _read_prompts(f"{key}.{name}", paths):
                has_prompts = True
                for gram in _grams(prompt):
                    self._of.setdefault(gram, name)
            if not has_prompts:
                raise ValueError(f"{key}.{name}: no row of {paths} has a prompt (one of {', '.join(ASKED)})")

    def holds(self, prompt: Iterable[Message]) -> str | None:
        """Return the benchmark that what the user says shares 13 words in a row with; None for none."""
        asked = BETWEEN.join(turn["content"] for turn in prompt if turn["role"] == "user")
        return next((self._of[gram] for gram in _grams(asked) if gram in self._of), None)


class Decontaminated:
    """The rows of a source except those whose prompt a benchmark asks as well.

    Args:
        source: what to leave out of.
        benchmarks: name -> its files, as in `Benchmarks`.

    Raises:
        ValueError: for what is no mapping, or a file that is not there; while reading, as `Benchmarks` does.
    """

    def __init__(self, source: Source, benchmarks: Mapping[str, Paths]) -> None:
        self.source = source
        if not isinstance(benchmarks, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's
            raise ValueError(f"{KEY}={benchmarks!r}; give a mapping, {KEY}={{NAME: FILES}}")
        self.files = {name: _files(name, paths) for name, paths in benchmarks.items()}

    @property
    def places(self) -> list[str]:
        """The places of its source."""
        return places_of(self.source)

    @cached_property
    def benchmarks(self) -> Benchmarks:
        """Their prompts, read when the first row is."""
        return Benchmarks(self.files, KEY)

    def fingerprint(self) -> str:
        """Return a digest of the source's fingerprint and of the benchmarks' bytes."""
        files = {name: file_digests(files) for name, files in self.files.items()}
        return digest(["decontaminated", self.source.fingerprint(), RULE_VERSION, files], 64)

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; those left out come as `BadRow`s that are counted and are not errors."""
        for row in self.source:
            if not isinstance(row, BadRow) and (name := self.benchmarks.holds(row.prompt)):
                yield BadRow(row.place, BY_BENCHMARK, name)
            else:
                yield row


def _files(name: str, paths: Paths) -> list[Path]:
    try:
        return find_files(paths)
    except ValueError as error:
        raise ValueError(f"{KEY}.{name}: {error}") from None


def _read_prompts(key: str, paths: Paths) -> Iterator[str]:
    """Yield the prompts of a benchmark's files.

    Raises:
        ValueError: for a row that cannot be read.
    """
    for file in find_files(paths):
        for record in read_file(file):
            if isinstance(record, BadRow):
                raise ValueError(f"{key}: {record.origin}: {record.reason}: {record.detail}")
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
    """Yield texts as they stand, and of messages what the user says, all turns in one as in a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence):
        turns = [
            cast(Mapping[str, object], turn) for turn in cast(Sequence[object], value) if isinstance(turn, Mapping)
        ]
        said = [turn.get("content") for turn in turns if turn.get("role", "user") in ("user", "human")]
        if texts := [text for text in said if isinstance(text, str)]:
            yield BETWEEN.join(texts)
