"""Marks and what is shown of a pair: worked values and properties."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.reviewing.marks import differing, joined, share_of_same, tokens
from lightning_rm.reviewing.shown import shown, shown_pair
from tests.float64 import same

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12)


@given(WORDS, WORDS)
@settings(max_examples=150)
def test_what_is_not_marked_is_the_same_in_both(first: list[str], second: list[str]) -> None:
    marks = differing(first, second)
    same = [
        [word for word, mark in zip(*side, strict=True) if not mark] for side in ((first, marks[0]), (second, marks[1]))
    ]
    assert same[0] == same[1]
    if first == second:
        assert not any(marks[0])


def test_marks_of_worked_texts() -> None:
    first, second = "The quick brown fox, it jumps.", "The slow brown fox jumps over."
    words = tokens(first), tokens(second)
    assert ["".join(side) for side in words] == [first, second]
    marks = differing(*words)
    assert [word for word, mark in zip(words[0], joined(words[0], marks[0]), strict=True) if mark] == [
        "quick",
        ",",
        " ",
        "it",
    ]
    assert [word for word, mark in zip(words[1], joined(words[1], marks[1]), strict=True) if mark] == ["slow", "over"]
    assert share_of_same(words[1], marks[1]) == same(17 / 25)
    assert tokens("日本語 text") == ["日", "本", "語", " ", "text"]
    assert share_of_same([], []) == 0


def test_long_texts_are_compared_in_no_time() -> None:
    """Fifty thousand words with one in a hundred changed: the changed ones are marked, and no others."""
    rng = random.Random(0)
    first = [str(rng.randrange(30_000)) for _ in range(50_000)]
    second = [f"x{n}" if n % 100 == 7 else word for n, word in enumerate(first)]
    marks = differing(first, second)
    assert [n for n, mark in enumerate(marks[1]) if mark] == list(range(7, 50_000, 100))
    assert all(differing(["a", "b"] * 20_000, ["c", "d"] * 20_000)[0])


def test_code_stands_apart_and_every_character_is_shown() -> None:
    text = "look:\n\n```python\nx = 1\n```\nand\n~~~\nopen"
    [turn] = shown([{"role": "assistant", "content": text}])["turns"]
    assert [block["code"] for block in turn["blocks"]] == [False, True, False, True]
    blocks = ["".join(run for run, _ in block["runs"]) for block in turn["blocks"]]
    assert blocks == ["look:", "```python\nx = 1\n```", "and", "~~~\nopen"]
    first, second, same = shown_pair(
        [{"role": "assistant", "content": text}], [{"role": "assistant", "content": text.replace("x = 1", "y = 1")}]
    )
    marked = [
        [run for block in side["turns"][0]["blocks"] for run, mark in block["runs"] if mark] for side in (first, second)
    ]
    assert marked == [["x"], ["y"]]
    assert same > 0.9


def test_long_texts_are_cut_and_counted() -> None:
    turns = [{"role": "assistant", "content": "a" * 30}, {"role": "tool", "content": "b" * 30, "name": "t"}]
    cut = shown(turns, 40)  # pyright: ignore[reportArgumentType]
    assert ["".join(run for run, _ in turn["blocks"][0]["runs"]) for turn in cut["turns"]] == ["a" * 30, "b" * 10]
    assert cut["num_left"] == 21
    whole = shown(turns)  # pyright: ignore[reportArgumentType]
    assert [(turn["role"], turn["field"]) for turn in whole["turns"]] == [
        ("assistant", ""),
        ("tool", ""),
        ("tool", "name"),
    ]
    assert whole["num_left"] == 0
