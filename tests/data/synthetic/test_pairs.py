from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from typing import Any

import pytest

from lightning_rm.data.rows import PairRow
from lightning_rm.data.synthetic.pairs import AMBIGUOUS_MARGIN, CLEAR_MARGIN, SyntheticSource
from lightning_rm.data.synthetic.words import VOCABULARY

GOLDEN = "5c56b718f2cefd0effee846364c69b4210a0e1fee36e36b002d12b946c71399f"


def rows(num_pairs: int = 400, **options: Any) -> list[PairRow]:
    return list(SyntheticSource(num_pairs, **options))


def test_the_same_seed_gives_the_same_bytes_on_any_machine() -> None:
    written = [asdict(row) for row in rows(50)]
    of_files_alone: list[tuple[str, object]] = [("origin", ""), ("others", {}), ("tied", False)]
    of_files_alone += [("doubts", ()), ("unread", ()), ("is_turned", False)]
    assert all(row.pop(name) == value for row in written for name, value in of_files_alone)
    text = json.dumps(written, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


def test_seeds_differ_and_a_larger_set_begins_with_the_smaller() -> None:
    assert rows(20, seed=1) != rows(20, seed=2)
    assert rows(40)[:20] == rows(20)


def test_no_prompt_stands_in_two_splits() -> None:
    prompts = [{row.prompt_id for row in rows(600, split=split)} for split in ("train", "val", "test", "ood")]
    assert all(not first & second for i, first in enumerate(prompts) for second in prompts[:i])


def test_clean_labels_prefer_the_better_response_always() -> None:
    assert all(row.clean and row.gold_margin is not None and row.gold_margin > 0 for row in rows(clean_labels=True))


def test_wrong_labels_are_about_as_many_as_the_noise() -> None:
    """Clear pairs: 10 % are turned round, and Bradley-Terry errs at 5 % of those three quarters of a point apart."""
    clear = rows(2000, ambiguity=0.0, noise=0.1, length_bias=0.0)
    wrong = sum(row.clean is False for row in clear) / len(clear)
    assert 0.08 < wrong < 0.17


def test_noise_changes_labels_and_no_text() -> None:
    def texts(pairs: list[PairRow]) -> list[list[str]]:
        return [sorted((row.chosen[0]["content"], row.rejected[0]["content"])) for row in pairs]

    quiet, loud = rows(100, noise=0.0), rows(100, noise=0.5)
    assert texts(quiet) == texts(loud)
    assert quiet != loud


def test_ambiguous_pairs_are_nearly_equal_and_the_others_clear() -> None:
    margins = [abs(row.gold_margin or 0) for row in rows(1000, ambiguity=0.3)]
    near = sum(margin <= AMBIGUOUS_MARGIN for margin in margins)
    assert 0.25 < near / 1000 < 0.35
    assert all(0 < margin <= AMBIGUOUS_MARGIN or margin >= CLEAR_MARGIN for margin in margins)


def test_a_taste_for_length_shows_in_the_labels() -> None:
    def longer(length_bias: float) -> float:
        pairs = [
            (len(row.chosen[0]["content"]), len(row.rejected[0]["content"])) for row in rows(length_bias=length_bias)
        ]
        return sum(chosen > rejected for chosen, rejected in pairs) / len(pairs)

    assert longer(2.0) > longer(0.0) + 0.1


def test_length_alone_does_not_solve_it() -> None:
    pairs = [
        (len(row.chosen[0]["content"].split()), len(row.rejected[0]["content"].split()))
        for row in rows(2000, split="test", clean_labels=True)
    ]
    longer = sum((chosen > rejected) + 0.5 * (chosen == rejected) for chosen, rejected in pairs) / len(pairs)
    assert 0.42 < longer < 0.58


def test_every_word_is_in_the_vocabulary() -> None:
    words = {
        word
        for split in ("train", "ood")
        for row in rows(200, split=split)
        for message in (*row.prompt, *row.chosen, *row.rejected)
        for word in re.findall(r"[a-z]+", message["content"].lower())
    }
    assert words <= set(VOCABULARY) | set("abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split='dev'; it must be one of"),
        ({"noise": 1.5}, "noise is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"length_bias": float("inf")}, "length_bias=inf; give a number"),
        ({"seed": -1}, "seed=-1; give 0 or more"),
        ({"levels": 1.5}, "levels=1.5; give a whole number, 0 or more"),
        ({"levels": 2, "level_shift": -5}, "level_shift=-5; give 0 or more"),
    ],
)
def test_values_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows(1, **options)


def test_an_annotators_levels_have_the_sign_of_the_label_and_ties_among_them() -> None:
    """The same draws name the better response and say how far; a level is 3 at most, a tie the label 1/2."""
    plain, told = rows(300), rows(300, levels=3)
    for before, after in zip(plain, told, strict=True):
        assert (after.chosen, after.rejected) in ((before.chosen, before.rejected), (before.rejected, before.chosen))
        assert after.tied or before.chosen == after.chosen
        assert after.tied == (after.strength_mean == 0) == (after.label == 0.5)
    sizes = [row.strength_mean for row in told]
    assert set(sizes) == {0.0, 1.0, 2.0, 3.0}
    shifted = [row.strength_mean for row in rows(300, levels=3, level_shift=1)]
    assert shifted == [min(size + 1, 3) if size else 0 for size in sizes if size is not None]


def test_random_levels_are_drawn_from_all_alike() -> None:
    drawn = rows(700, levels=3, random_levels=1.0)
    assert 0.05 < sum(row.tied for row in drawn) / 700 < 0.25  # one level of seven
    assert 0.4 < sum(row.clean is True for row in drawn if not row.tied) / sum(not row.tied for row in drawn) < 0.6
