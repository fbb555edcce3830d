"""Where a row stands, as errors, tables and caches name it: a file and a line, a data set and a row. It knows texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Located(Protocol):
    """A source that can name what its rows stand in. A cache file made elsewhere then names its rows by this place."""

    @property
    def places(self) -> Sequence[str]:
        """The files or data sets that the `origin` of its rows begins with, in the order they are read."""
        ...


def places_of(source: object) -> list[str]:
    """Return the files or data sets that the rows of a source stand in; empty where it does not say."""
    return list(source.places) if isinstance(source, Located) else []


def moved(origin: str, names: Mapping[str, str]) -> str:
    """Return a place under its file's current name: `a.jsonl:17` is `b.jsonl:17` after `{"a.jsonl": "b.jsonl"}`."""
    for before, now in names.items():
        if origin.startswith((f"{before}:", f"{before} row ")):
            return now + origin[len(before) :]
    return origin


def file_and_line(origin: str) -> tuple[str, int]:
    """Return the two parts of a place: `a.jsonl:17` is line 17, `a.parquet row 17` is row 17.

    -1 where it names none.
    """
    if found := re.fullmatch(r"(?s)(.*)(?::| row )(\d+)", origin):
        return found[1], int(found[2])
    return origin, -1
