"""Random choices that every machine makes alike."""

from __future__ import annotations

import hashlib
import random

import pytest

from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.digests import key_digest


def test_a_stream_is_pythons_own_for_the_digest_of_its_key() -> None:
    key = hashlib.sha256(b"7\n'train'\n3").hexdigest()
    assert key_digest(7, "train", 3) == key
    expected, draws = random.Random(int(key, 16)), Draws(7, "train", 3)
    assert [draws.uniform() for _ in range(5)] == [expected.random() for _ in range(5)]


def test_keys_name_streams() -> None:
    assert Draws(1, "a").uniform() == Draws(1, "a").uniform()
    assert len({Draws(*key).uniform() for key in ((1, "a"), (1, "b"), (2, "a"), ("1", "a"))}) == 4


def test_samples_repeat_nothing_and_leave_the_options_alone() -> None:
    draws, options = Draws("sample"), list(range(10))
    for num in range(11):
        drawn = draws.sample(options, num)
        assert len(set(drawn)) == len(drawn) == num
        assert set(drawn) <= set(range(10))
    assert sorted(draws.shuffle(options)) == options == list(range(10))


def test_choices_come_as_often_as_they_should() -> None:
    """3000 draws: one in four is 750, and a standard deviation is 24."""
    draws = Draws("often")
    assert abs(sum(draws.weighted({"red": 3, "green": 1}) == "green" for _ in range(3000)) - 750) < 120
    assert abs(sum(draws.choice("abcd") == "a" for _ in range(3000)) - 750) < 120
    assert abs(sum(draws.chance(0.25) for _ in range(3000)) - 750) < 120


def test_nothing_can_be_drawn_from_nothing() -> None:
    with pytest.raises(ValueError, match="weights are empty"):
        Draws("none").weighted({})
