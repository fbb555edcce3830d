"""Order, marks, kappa and what reviews tell of the rest: worked values and properties."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.analysis.flips import FlipPrecision, deciles_to_flip, flip_precision, wilson, wrong_share
from lightning_rm.analysis.kappa import cohen_kappa
from lightning_rm.reviewing.marks import differing, joined, share_of_same, tokens
from lightning_rm.reviewing.order import REASONS, by_dispute, deciles, review_order
from lightning_rm.reviewing.shown import shown, shown_pair

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12)


def test_ten_in_a_row_are_of_every_kind() -> None:
    """Of 200 pairs whose strength is their number: 4 of decile 0, the 2 most disputed, 1 of decile 9, 3 of others."""
    mean = np.arange(200) - 80.3
    order = review_order(mean, np.ones(200), seed=3)
    first = order.row[:10]
    by_reason = {name: first[order.reason[:10] == place].tolist() for place, name in enumerate(REASONS)}
    assert {name: len(rows) for name, rows in by_reason.items()} == {
        "weakest": 4,
        "disputed": 2,
        "strongest": 1,
        "sample": 3,
    }
    assert max(by_reason["weakest"]) < 20
    assert sorted(by_reason["disputed"]) == [80, 81]
    assert by_reason["strongest"][0] >= 180
    assert sorted(order.row.tolist()) == list(range(200))
    assert order.row.tolist() == review_order(mean, np.ones(200), seed=3).row.tolist()
    assert order.row.tolist() != review_order(mean, np.ones(200), seed=4).row.tolist()


@pytest.mark.parametrize("num_pairs", [0, 1, 7, 23])
def test_every_pair_stands_once_in_every_order(num_pairs: int) -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=num_pairs), rng.random(num_pairs)
    for ordering in ("worth", "weakest", "disputed", "strongest", "file"):
        assert sorted(review_order(mean, std, ordering).row.tolist()) == list(range(num_pairs))
    assert mean[review_order(mean, std, "weakest").row].tolist() == sorted(mean)


def test_another_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="order='best': there are worth, weakest"):
        review_order(np.zeros(1), np.zeros(1), "best")  # pyright: ignore[reportArgumentType]


def test_what_is_fair_is_drawn_by_chance() -> None:
    """Over 400 seeds, each pair of a decile is among the fair ones of the first 60 equally often, disputed or not."""
    mean = np.repeat(np.arange(10.0), 12) - 4.6
    std = np.tile(np.linspace(0.1, 9, 12), 10)  # some of every decile are disputed
    times = np.zeros(120)
    shown_at_all = np.zeros(120)
    for seed in range(400):
        order = review_order(mean, std, seed=seed)
        times += order.fair_from <= 60
        shown_at_all[order.row[:60]] += 1
    by_decile = times.reshape(10, 12)
    assert by_decile[0].mean() > 380  # 24 of the weakest are drawn, and there are 12
    for decile in range(2, 9):
        share = by_decile[decile] / 400
        assert abs(share - share.mean()).max() < 0.1
    assert (shown_at_all.reshape(10, 12) / 400).std(1)[4:6].max() > 0.2  # what is shown is not drawn by chance


def test_disputed_first_and_deciles() -> None:
    mean, std = np.array([-1.0, 0.5, 0.0, 3.0, 0.2]), np.array([1.0, 2.0, 0.0, 1.0, 0.0])
    assert by_dispute(mean, std).tolist() == [2, 1, 0, 3, 4]
    assert deciles(np.array([5.0, 1, 3, 2, 4, 10, 9, 8, 7, 6])).tolist() == [4, 0, 2, 1, 3, 9, 8, 7, 6, 5]


@given(WORDS, WORDS)
@settings(max_examples=150, deadline=None)
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
    assert share_of_same(words[1], marks[1]) == pytest.approx(17 / 25)
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


def test_kappa_of_a_worked_table() -> None:
    """Both yes 20, both no 15, only the first yes 5, only the second 10: p_o = .7, p_e = .5, kappa = .4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen_kappa(first, second)
    assert found == pytest.approx((0.4, 0.7, 0.5, 50), abs=1e-12)
    assert cohen_kappa("aab", "aab").kappa == 1
    assert math.isnan(cohen_kappa("aaa", "aaa").kappa)
    assert cohen_kappa([], []).num_pairs == 0


def test_precision_of_flips_of_a_worked_decile() -> None:
    """Of decile 0: 8 wrong, 2 right, a tie. Wilson's interval of 8 of 10 is .490 to .943 (95 %)."""
    decile = [0] * 13 + [1] * 3
    wrong = [1.0] * 8 + [0.0] * 2 + [0.5] + [np.nan] * 2 + [0.0, np.nan, np.nan]
    found = flip_precision(decile, wrong, num_deciles=2)
    assert found.num_pairs.tolist() == [13, 3]
    assert (found.num_wrong[0], found.num_right[0], found.num_ties[0]) == (8, 2, 1)
    assert found.precision.tolist() == [0.8, 0.0]
    assert (found.low[0], found.high[0]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert deciles_to_flip(found) == 0
    assert deciles_to_flip(flip_precision([0] * 20, [1.0] * 18 + [0.0] * 2, 1)) == 1
    share = wrong_share(found)
    assert share.share == pytest.approx(13 / 16 * 8 / 11)
    assert share.low < share.share < share.high
    assert math.isnan(wrong_share(flip_precision([0, 1], [1.0, np.nan], 2)).share)
    low, high = wilson([0, 0], [0, 4])
    assert low.tolist() == [0, 0]
    assert (high[0], high[1]) == pytest.approx((1, 0.4899), abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        [1, 0.6, 0.4, 0.2, 0.1, 0.08, 0.05, 0.03, 0.02, 0.01],
        [0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.05],
        [0.3, 0.1, 0.05, 0.02, 0.01, 0, 0, 0, 0, 0],
        [0.5] * 10,
    ],
)
def test_the_interval_of_the_whole_holds_the_truth(wrong: list[float]) -> None:
    """Of 500 made reviews of 60 pairs, 48 of them drawn by chance as the order draws them, at least 85 in 100."""
    rng = np.random.default_rng(0)
    num = np.array([24, 2, 2, 2, 2, 2, 3, 2, 3, 6])
    num_held = 0
    for _ in range(500):
        found = rng.binomial(num, wrong)
        none, precision = np.zeros(10, np.int64), found / num
        share = wrong_share(FlipPrecision(np.full(10, 200), num - found, found, none, precision, precision, precision))
        num_held += share.low <= np.mean(wrong) <= share.high
    assert num_held >= 0.85 * 500
