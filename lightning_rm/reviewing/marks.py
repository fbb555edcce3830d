"""What differs between two texts, word by word: patience diff. It knows texts alone.

Words that stand once in either text hold the two together, the rest is compared between them. That takes next to no
time on long texts, and texts that have little in common fall apart into few pieces, which a reader can follow.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
TOKEN = re.compile(rf"[{CJK}]|[^\s!-/:-@\[-^`{{-~{CJK}]+|\s+|.", re.DOTALL)
"""A word, a sign or a run of blanks; a character each in scripts without blanks."""

MAX_CELLS = 2500
"""The most cells of the table that compares two stretches exactly; longer ones without a common word differ whole."""


def tokens(text: str) -> list[str]:
    """Return a text in words, signs and blanks: joined again they are the text."""
    return TOKEN.findall(text)


def differing(first: Sequence[str], second: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return which tokens of each text are not in the other one in the same order.

    The other tokens of both texts are one and the same sequence.
    """
    marks = [True] * len(first), [True] * len(second)
    ranges = [(0, len(first), 0, len(second))]
    while ranges:
        start, end, other_start, other_end = ranges.pop()
        while start < end and other_start < other_end and first[start] == second[other_start]:
            marks[0][start] = marks[1][other_start] = False
            start, other_start = start + 1, other_start + 1
        while start < end and other_start < other_end and first[end - 1] == second[other_end - 1]:
            end, other_end = end - 1, other_end - 1
            marks[0][end] = marks[1][other_end] = False
        if start == end or other_start == other_end:
            continue
        anchors = _anchors(first[start:end], second[other_start:other_end])
        if not anchors and (end - start) * (other_end - other_start) <= MAX_CELLS:
            for place, other in _longest(first[start:end], second[other_start:other_end]):
                marks[0][start + place] = marks[1][other_start + other] = False
        if anchors:
            edges = [*((start + place, other_start + other) for place, other in anchors), (end, other_end)]
            before, other_before = start, other_start
            for place, other in edges:
                ranges.append((before, place, other_before, other))
                before, other_before = place, other
            # Each gap after the first begins with its anchor, which is the same in both.
    return marks


def joined(words: Sequence[str], marks: Sequence[bool]) -> list[bool]:
    """Join marks so that they do not tire the eye: over the blank between two marked words, not over one at the end of
    a mark.
    """
    found = list(marks)
    for place, word in enumerate(words):
        if word.isspace():
            sides = [marks[other] for other in (place - 1, place + 1) if 0 <= other < len(words)]
            alone = marks[place] and not any(sides)  # the blank itself is what differs
            found[place] = alone or (len(sides) == 2 and all(sides) and (marks[place] or word == " "))
    return found


def share_of_same(words: Sequence[str], marks: Sequence[bool]) -> float:
    """Return the share of a text's characters, without blanks, that the other text has too; 0 of an empty one."""
    lengths = [len(word.strip()) for word in words]
    total = sum(lengths)
    return sum(length for length, mark in zip(lengths, marks, strict=True) if not mark) / total if total else 0.0


def _anchors(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of words that stand once in either, as many as keep order: the longest rising sequence."""
    counts, other_counts = Counter(first), Counter(second)
    place_of = {word: place for place, word in enumerate(second) if other_counts[word] == 1 and not word.isspace()}
    pairs = [(place, place_of[word]) for place, word in enumerate(first) if counts[word] == 1 and word in place_of]
    ends: list[int] = []  # the least last place of a rising sequence, by its length
    last: list[int] = []  # which pair that is
    before: list[int] = []
    for number, (_, other) in enumerate(pairs):
        length = bisect_left(ends, other)
        ends[length : length + 1] = [other]
        last[length : length + 1] = [number]
        before.append(last[length - 1] if length else -1)
    chain: list[tuple[int, int]] = []
    number = last[-1] if last else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


def _longest(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of the longest common subsequence."""
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for place in reversed(range(len(first))):
        for other in reversed(range(len(second))):
            same = first[place] == second[other]
            lengths[place][other] = (
                lengths[place + 1][other + 1] + 1 if same else max(lengths[place + 1][other], lengths[place][other + 1])
            )
    found: list[tuple[int, int]] = []
    place = other = 0
    while place < len(first) and other < len(second):
        if first[place] == second[other]:
            found.append((place, other))
            place, other = place + 1, other + 1
        elif lengths[place + 1][other] >= lengths[place][other + 1]:
            place += 1
        else:
            other += 1
    return found
