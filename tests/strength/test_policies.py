"""Policies on worked rows: what is decided of each pair, and what it is trained towards then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_rm.strength import Strength, Targets, treat
from lightning_rm.strength.policies import DECISIONS, PolicyName, decisions, is_turned, policy, reason, reviewed

NAN = float("nan")
VOTES = [
    [2.0, 2.0, 2.0, 2.0, 2.0],  # all for it
    [-1.0, -1.0, -1.0, -1.0, 0.5],  # four of five against it
    [1.0, -1.0, 1.0, -1.0, 0.1],  # disputed
    [-2.0, -2.0, -2.0, -2.0, -2.0],  # all against it
    [NAN, NAN, NAN, NAN, NAN],  # nobody has a say
]
STRENGTH = Strength.of_votes(VOTES)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # Ranks of four: the weakest half are rows 3 and 1, both contradicted.
        ("flip_weakest", {"share": 0.5}, ["kept", "flipped", "kept", "flipped", "kept"]),
        # Three quarters hold row 2 too, whose mean is 0.02: the voters back it.
        ("flip_weakest", {"share": 0.75}, ["kept", "flipped", "kept", "flipped", "kept"]),
        ("flip_weakest", {"share": 0.0}, ["kept"] * 5),
        ("drop", {"share": 0.25}, ["kept", "kept", "kept", "set aside", "kept"]),
        ("drop", {"share": 0.0}, ["kept"] * 5),
        ("agreement", {"share": 0.1}, ["kept", "flipped", "set aside", "flipped", "kept"]),
        ("agreement", {"share": 0.1, "agree": 1.0}, ["kept", "set aside", "set aside", "flipped", "kept"]),
        ("soft", {"share": 0.1}, ["softened", "softened", "softened", "softened", "kept"]),
    ],
)
def test_worked_rows(name: PolicyName, options: dict[str, float], expected: list[str]) -> None:
    before = Targets.plain(5)
    after = policy(name, **options)(STRENGTH, before)
    assert decisions(before, after).tolist() == expected


def test_soft_labels_are_what_the_voters_believe() -> None:
    after = policy("soft", share=0, temperature=2.0)(STRENGTH, Targets.plain(5))
    np.testing.assert_allclose(after.label[[0, 3]], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))], rtol=1e-12)
    assert is_turned(after).tolist() == [False, True, False, True, False]


def test_what_people_say_comes_last() -> None:
    before = Targets.plain(5)
    flipped = policy("flip_weakest", share=0.5)(STRENGTH, before)
    verdicts = np.array(["flip", "keep", "tie", "skip", ""])
    after = reviewed(STRENGTH, flipped, verdicts=verdicts)
    assert decisions(before, after).tolist() == ["flipped", "kept", "softened", "flipped", "kept"]
    assert after.label.tolist() == [0, 1, 0.5, 0, 1]


def test_what_people_say_brings_back_what_was_dropped() -> None:
    before = Targets.plain(5)
    after = reviewed(
        STRENGTH, policy("agreement", share=0)(STRENGTH, before), verdicts=np.array(["", "", "keep", "", ""])
    )
    assert after.kept.all()


@given(
    arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=st.floats(-3, 3)),
    st.sampled_from(["flip_weakest", "agreement", "soft", "drop"]),
    st.floats(0, 1),
    st.data(),
)
def test_every_pair_has_one_decision(votes: np.ndarray, name: PolicyName, share: float, data: st.DataObject) -> None:
    before = Targets.plain(len(votes))
    strength = Strength.of_votes(votes)
    said = data.draw(
        st.lists(st.sampled_from(["", "keep", "flip", "tie", "skip"]), min_size=len(votes), max_size=len(votes))
    )
    after = treat(strength, before, [policy(name, share=share)])
    after = reviewed(strength, after, verdicts=np.array(said, dtype="<U4"))
    decided = decisions(before, after)
    assert sum(int((decided == one).sum()) for one in DECISIONS) == len(votes)
    assert ((decided == "set aside") == ~after.kept).all()
    assert (after.label[decided == "flipped"] < 0.5).all()
    assert (after.label[decided == "kept"] == 1).all()


def test_the_reason_has_the_numbers() -> None:
    assert reason(STRENGTH, 1, "drop") == (
        "drop: strength -0.700, rank 25.0 % from the weakest, 20 % of the votes for the label"
    )
    assert reason(STRENGTH, 4, "drop") == "drop: no votes"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vote", {"share": 0.1}, "policy='vote' is not one of flip_weakest, agreement, soft, drop"),
        ("drop", {"share": 1.1}, "share=1.1 is not a share"),
        ("agreement", {"share": 0, "agree": 0.5}, "agree=0.5 is not a majority"),
        ("soft", {"share": 0, "temperature": 0}, "temperature=0 must be above 0"),
    ],
)
def test_a_setting_that_is_none_is_named(name: PolicyName, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy(name, **options)
