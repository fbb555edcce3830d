"""A pair as the page shows it: turns in runs of text, each with whether it differs and whether it is code.

It makes no markup: the page inserts every run as text. Characters that could deceive a reader, such as those that
reverse the reading direction, are shown as U+FFFD.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, TypedDict, cast

from lightning_rm.data.rows import Message
from lightning_rm.markup import visible
from lightning_rm.reviewing.marks import differing, joined, share_of_same, tokens

FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n.*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
"""A block of code in Markdown, with the lines that fence it; one without an end goes to the end."""


class Block(TypedDict):
    """A stretch of a turn: `runs` are texts, and whether the other response lacks each."""

    code: bool
    runs: list[tuple[str, bool]]


class Turn(TypedDict):
    """A turn, or another field of one, which `field` names."""

    role: str
    field: str
    blocks: list[Block]


class Shown(TypedDict):
    """Turns as they are shown, and how many characters at the end are not."""

    turns: list[Turn]
    num_left: int


class _Part(NamedTuple):
    role: str
    field: str
    text: str


def shown(turns: Sequence[Message], limit: int | None = None) -> Shown:
    """Return turns without marks.

    Args:
        turns: of a prompt.
        limit: the most characters that are shown, from the first; None for all.
    """
    parts, num_left = _cut(_parts(turns), limit)
    return {"turns": [_turn(part, [(part.text, False)]) for part in parts], "num_left": num_left}


def shown_pair(
    first: Sequence[Message], second: Sequence[Message], limit: int | None = None
) -> tuple[Shown, Shown, float]:
    """Return two responses with what differs between them.

    Args:
        first: turns.
        second: turns.
        limit: the most characters of each that are shown and compared; None for all.

    Returns:
        Both, and the share of the shorter one that the other has too: marks help where it is not small.
    """
    cut = [_cut(_parts(turns), limit) for turns in (first, second)]
    words = [[tokens(part.text) for part in parts] for parts, _ in cut]
    flat = [[word for part in parts for word in part] for parts in words]
    marks = differing(flat[0], flat[1])
    same = max(share_of_same(flat[side], marks[side]) for side in (0, 1))
    made: list[Shown] = []
    for side, (parts, num_left) in enumerate(cut):
        smooth = iter(joined(flat[side], marks[side]))
        turns = [
            _turn(part, _runs(inside, [next(smooth) for _ in inside]))
            for part, inside in zip(parts, words[side], strict=True)
        ]
        made.append({"turns": turns, "num_left": num_left})
    return made[0], made[1], same


def _parts(turns: Sequence[Message]) -> list[_Part]:
    """Return what there is to read of turns: their texts, and what else they hold as JSON."""
    found: list[_Part] = []
    for turn in turns:
        if turn["content"] or len(turn) == 2:
            found.append(_Part(turn["role"], "", visible(turn["content"])))
        for name, value in cast(Mapping[str, object], turn).items():
            if name not in ("role", "content") and value is not None:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1, default=str)
                found.append(_Part(turn["role"], name, visible(text)))
    return found


def _cut(parts: Sequence[_Part], limit: int | None) -> tuple[list[_Part], int]:
    """Return the first `limit` characters, and how many follow."""
    total = sum(len(part.text) for part in parts)
    if limit is None or total <= limit:
        return list(parts), 0
    kept: list[_Part] = []
    room = limit
    for part in parts:
        if room > 0:
            kept.append(part._replace(text=part.text[:room]))
            room -= len(part.text)
    return kept, total - limit


def _runs(words: Sequence[str], marks: Sequence[bool]) -> list[tuple[str, bool]]:
    grouped = groupby(zip(words, marks, strict=True), key=lambda pair: pair[1])
    return [("".join(word for word, _ in group), mark) for mark, group in grouped]


def _turn(part: _Part, runs: Sequence[tuple[str, bool]]) -> Turn:
    return {"role": visible(part.role), "field": part.field, "blocks": _blocks(part.text, runs, bool(part.field))}


def _blocks(text: str, runs: Sequence[tuple[str, bool]], is_code: bool) -> list[Block]:
    """Return runs cut where blocks of code begin and end."""
    edges = [(0, len(text), is_code)]
    if not is_code:
        edges, place = [], 0
        for fence in FENCE.finditer(text):
            edges += [(place, len(text[: fence.start()].rstrip("\n")), False), (fence.start(), fence.end(), True)]
            place = len(text) - len(text[fence.end() :].lstrip("\n"))  # a block stands apart without blank lines
        edges.append((place, len(text), False))
    found: list[Block] = []
    for start, end, code in edges:
        inside: list[tuple[str, bool]] = []
        place = 0
        for run, mark in runs:
            piece = run[max(start - place, 0) : max(end - place, 0)]
            if piece:
                inside.append((piece, mark))
            place += len(run)
        if inside:
            found.append({"code": code, "runs": inside})
    return found
