"""The made world's drifting policy: nothing moves at shift 0, and what the docstring says moves, moves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest

from lightning_rm.data.rows import GroupRow
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import FAVOURITE_STYLE, Policy, SyntheticGroups
from lightning_rm.data.synthetic.responses import sample_style
from lightning_rm.data.synthetic.words import CLOSINGS, OPENINGS, PRAISES, SEPARATORS

SHIFTS = (0.0, 0.5, 1.0)
GOLDEN = "b1040e060a4c49bbf625b617223b5b76db2b8add9422d80d22569bfa42a6d931"


def groups(num_prompts: int = 400, **options: Any) -> list[GroupRow]:
    return list(SyntheticGroups(num_prompts, **options))


def texts(row: GroupRow) -> list[str]:
    return [response[0]["content"] for response in row.responses]


def differences(row: GroupRow) -> list[float]:
    return [abs(first - second) for first, second in combinations(row.gold, 2)]


def words(response: str) -> int:
    return len(response.split())


# Pairs


@pytest.mark.parametrize(
    "options", [{}, {"split": "ood", "ambiguity": 0.3}, {"flawless": True}, {"clean_labels": True, "seed": 3}]
)
def test_a_policy_that_has_not_drifted_gives_the_same_pairs(options: dict[str, Any]) -> None:
    assert list(SyntheticSource(60, shift=0.0, **options)) == list(SyntheticSource(60, **options))


def test_prompts_do_not_depend_on_the_shift() -> None:
    plain, shifted = (list(SyntheticSource(50, shift=shift, split="test")) for shift in (0.0, 1.0))
    assert [row.prompt for row in plain] == [row.prompt for row in shifted]
    assert [row.chosen for row in plain] != [row.chosen for row in shifted]


def test_shifted_pairs_differ_by_less_and_never_by_nothing() -> None:
    margins = [
        np.array([row.gold_margin for row in SyntheticSource(1500, shift=shift, clean_labels=True, ambiguity=0.0)])
        for shift in SHIFTS
    ]
    assert all(margin.min() > 0 for margin in margins)
    assert [margin.min() >= 0.75 * (1 - shift) for margin, shift in zip(margins, SHIFTS, strict=True)] == [True] * 3
    assert all(later.mean() < earlier.mean() - 0.15 for earlier, later in pairwise(margins))


def test_a_shifted_demonstration_is_better_than_the_other() -> None:
    assert all(row.gold_margin and row.gold_margin > 0 for row in SyntheticSource(40, shift=1.0, flawless=True))


def test_the_shift_changes_the_fingerprint() -> None:
    assert len({SyntheticSource(5, shift=shift).fingerprint() for shift in SHIFTS}) == 3
    assert len({SyntheticGroups(5, shift=shift).fingerprint() for shift in SHIFTS}) == 3


# Groups


def test_the_same_seed_gives_the_same_bytes_on_any_machine() -> None:
    written = [asdict(row) for row in groups(20, shift=0.5)]
    of_files_alone = [
        ("origin", ""),
        ("unread", ()),
        ("doubts", ()),
        ("subset", "all"),
        ("scores", ()),
        ("weight", 1.0),
    ]
    assert all(row.pop(name) == value for row in written for name, value in of_files_alone)
    text = json.dumps(written, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


def test_groups_answer_the_prompts_of_the_pairs() -> None:
    pairs = list(SyntheticSource(30, split="test", seed=2))
    for shift in SHIFTS:
        answered = groups(30, split="test", seed=2, shift=shift)
        assert [(row.prompt, row.prompt_id) for row in answered] == [(row.prompt, row.prompt_id) for row in pairs]


def test_a_larger_set_begins_with_the_smaller_and_every_group_has_k_responses() -> None:
    assert groups(40, k=3)[:20] == groups(20, k=3)
    assert {(len(row.responses), len(row.gold)) for row in groups(20, k=3)} == {(3, 3)}


def test_responses_become_better_more_alike_and_longer() -> None:
    """The table of the module's docstring, on fewer prompts."""
    drawn = [groups(600, split="test", shift=shift) for shift in SHIFTS]
    gold = [np.mean([row.gold for row in rows]) for rows in drawn]
    spread = [np.mean([differences(row) for row in rows]) for rows in drawn]
    length = [np.mean([words(text) for row in rows for text in texts(row)]) for rows in drawn]
    assert gold == pytest.approx([8.88, 9.13, 9.39], abs=0.12)
    assert spread == pytest.approx([1.45, 1.23, 0.92], abs=0.12)
    assert length == pytest.approx([8.1, 11.1, 14.1], abs=0.3)


def test_the_style_narrows_to_one() -> None:
    def styles(shift: float) -> set[Any]:
        return {Policy(shift).style(Draws("style", i)) for i in range(200)}

    assert styles(0.0) == {sample_style(Draws("style", i)) for i in range(200)}
    assert styles(1.0) == {FAVOURITE_STYLE}
    assert len(styles(0.0)) > len(styles(0.8)) > 1


def test_every_part_of_the_favourite_style_is_known_from_training() -> None:
    style = FAVOURITE_STYLE
    assert style.opening in OPENINGS
    assert style.closing in CLOSINGS
    assert (style.separator, style.last_separator) in SEPARATORS
    assert style.praise in PRAISES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split='dev'; it must be one of"),
        ({"k": 1}, "k is 1"),
        ({"seed": -1}, "seed=-1; give 0 or more"),
        ({"k": 2.5}, "k=2.5; give a whole number"),
        ({"shift": 1.5}, "shift is 1.5"),
    ],
)
def test_values_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        groups(1, **options)


def test_a_pair_source_checks_its_shift() -> None:
    with pytest.raises(ValueError, match=r"shift is -0\.1"):
        SyntheticSource(1, shift=-0.1)
