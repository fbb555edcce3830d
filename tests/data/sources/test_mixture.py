"""Mixtures and splits: who is taken depends on the row's name alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, PairRow
from lightning_rm.data.sources.mixture import Mixture
from lightning_rm.data.sources.resampling import PromptSplit, unit_hash


class Rows:
    """A source of rows that are at hand."""

    def __init__(self, rows: Sequence[PairRow | BadRow], name: str = "rows") -> None:
        self.rows, self.name = rows, name

    def fingerprint(self) -> str:
        return self.name

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        return iter(self.rows)


def pair(number: int, prompt_id: str = "", subset: str = "all") -> PairRow:
    said = ({"role": "assistant", "content": str(number)},)
    return PairRow((), said, said, id=str(number), prompt_id=prompt_id or f"p{number}", subset=subset)  # pyright: ignore


BROKEN = BadRow("a.jsonl:1", "broken JSON", "{")
MANY = [pair(number) for number in range(1000)]


def ids(source: Mixture | PromptSplit) -> list[str]:
    return [row.id for row in source if isinstance(row, PairRow)]


def test_weight_one_takes_every_row_once_in_order() -> None:
    mixture = Mixture({"a": Rows(MANY[:3]), "b": Rows([BROKEN, *MANY[5:7]])})
    assert ids(mixture) == ["0", "1", "2", "5", "6"]
    assert [row for row in mixture if isinstance(row, BadRow)] == [BROKEN]
    assert [row.subset for row in mixture if isinstance(row, PairRow)] == ["a"] * 3 + ["b"] * 2


def test_a_row_with_a_subset_keeps_it() -> None:
    rows = list(Mixture({"a": Rows([pair(1, subset="easy"), pair(2)])}))
    assert [row.subset for row in rows if isinstance(row, PairRow)] == ["easy", "a"]


def test_weight_two_and_a_half() -> None:
    """1,000 rows: 2,000 copies for certain, and a fair draw a row for the rest (sd 16)."""
    taken = Counter(row_id.split("#")[0] for row_id in ids(Mixture({"a": Rows(MANY)}, {"a": 2.5})))
    assert set(taken.values()) == {2, 3}
    assert abs(taken.total() - 2500) < 80
    assert ids(Mixture({"a": Rows(MANY[:1])}, {"a": 3})) == ["0", "0#2", "0#3"]


def test_rows_left_out_by_weight_are_counted() -> None:
    rows = list(Mixture({"a": Rows(MANY)}, {"a": 0.5}))
    left_out = [row for row in rows if isinstance(row, BadRow)]
    assert len(rows) == 1000
    assert abs(len(left_out) - 500) < 80
    assert {row.reason for row in left_out} == {"left out by weight"}
    assert {row.reason for row in left_out} <= EXPECTED_REASONS
    assert ids(Mixture({"a": Rows(MANY)}, {"a": 0})) == []


def test_half_is_the_same_half_in_any_order_and_another_for_another_seed() -> None:
    shuffled = random.Random(0).sample(MANY, len(MANY))
    half = ids(Mixture({"a": Rows(MANY)}, {"a": 0.5}))
    assert sorted(ids(Mixture({"a": Rows(shuffled)}, {"a": 0.5}))) == sorted(half)
    assert ids(Mixture({"a": Rows(MANY[:500])}, {"a": 0.5})) == [row_id for row_id in half if int(row_id) < 500]
    assert ids(Mixture({"a": Rows(MANY)}, {"a": 0.5}, seed=1)) != half
    assert set(half) < set(ids(Mixture({"a": Rows(MANY)}, {"a": 0.7})))


def test_rows_of_one_id_are_drawn_one_by_one() -> None:
    same = [replace(row, id="same") for row in MANY]
    assert abs(len(ids(Mixture({"a": Rows(same)}, {"a": 0.5}))) - 500) < 80


def test_weights_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="weights names 'b'; the sources are a"):
        Mixture({"a": Rows([])}, {"b": 1})
    for weight in (-1.0, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match="the weight of 'a'"):
            Mixture({"a": Rows([])}, {"a": weight})


def test_fingerprints_compose() -> None:
    a, b = Rows([], "a"), Rows([], "b")
    made = [
        Mixture({"a": a, "b": b}),
        Mixture({"b": b, "a": a}),
        Mixture({"a": a, "b": a}),
        Mixture({"a": a, "c": b}),
        Mixture({"a": a, "b": b}, {"a": 2}),
        Mixture({"a": a, "b": b}, seed=1),
        PromptSplit(a, "train", 0.1),
        PromptSplit(a, "held_out", 0.1),
        PromptSplit(a, "train", 0.2),
        PromptSplit(a, "train", 0.1, seed=1),
        PromptSplit(b, "train", 0.1),
    ]
    assert len({source.fingerprint() for source in made}) == len(made)
    assert Mixture({"a": a, "b": b}, {"a": 1, "b": 1}).fingerprint() == made[0].fingerprint()


@given(st.lists(st.integers(0, 30), min_size=1), st.floats(0.1, 0.9), st.integers(0, 5))
@settings(max_examples=50)
def test_split_is_a_partition_and_no_prompt_stands_on_both_sides(
    prompts: list[int], fraction: float, seed: int
) -> None:
    rows = Rows([pair(number, prompt_id=str(prompt)) for number, prompt in enumerate(prompts)])
    sides: dict[str, list[PairRow]] = {}
    for part in ("train", "held_out"):
        try:
            sides[part] = [row for row in PromptSplit(rows, part, fraction, seed) if isinstance(row, PairRow)]
        except ValueError as error:
            # Whether a side is empty is drawn, so pytest.raises does not fit here.
            assert f"on the side {part!r}" in str(error)  # noqa: PT017
            sides[part] = []
    assert sorted(int(row.id) for side in sides.values() for row in side) == list(range(len(prompts)))
    assert not {row.prompt_id for row in sides["train"]} & {row.prompt_id for row in sides["held_out"]}


def test_a_prompt_keeps_its_side_in_every_data_set() -> None:
    held_out = set(ids(PromptSplit(Rows(MANY), "held_out", 0.2)))
    assert abs(len(held_out) - 200) < 65
    few = random.Random(1).sample(MANY, 100)
    assert set(ids(PromptSplit(Rows(few), "held_out", 0.2))) == held_out & {row.id for row in few}
    assert held_out < set(ids(PromptSplit(Rows(MANY), "held_out", 0.3)))


def test_a_bad_row_is_counted_once_on_the_side_of_training() -> None:
    rows = Rows([BROKEN, *MANY])
    assert [BROKEN in list(PromptSplit(rows, part, 0.1)) for part in ("train", "held_out")] == [True, False]


def test_a_side_without_prompts_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"no prompt fell on the side 'held_out' .* all 1 pairs .* fraction=0.01"
    ) as told:
        list(PromptSplit(Rows(MANY[:1]), "held_out", 0.01))
    least = float(str(told.value).split("at least ")[1].split()[0])
    assert list(PromptSplit(Rows(MANY[:1]), "held_out", least)) == MANY[:1]
    with pytest.raises(ValueError, match="no prompt fell on the side 'train'") as told:
        list(PromptSplit(Rows(MANY[:1]), "train", 0.999))
    most = float(str(told.value).split("at most ")[1].split()[0])
    assert list(PromptSplit(Rows(MANY[:1]), "train", most)) == MANY[:1]
    assert list(PromptSplit(Rows([]), "held_out", 0.01)) == []


@pytest.mark.parametrize(("part", "fraction"), [("val", 0.1), ("train", 0.0), ("train", 1.0), ("train", float("nan"))])
def test_splits_that_cannot_be(part: str, fraction: float) -> None:
    with pytest.raises(ValueError, match="must"):
        PromptSplit(Rows(MANY), part, fraction)  # pyright: ignore


def test_unit_hash_is_even_and_fixed() -> None:
    """Ten bins of 2,000 numbers hold 200 each, give or take 13."""
    numbers = [unit_hash(0, f"row {i}") for i in range(2000)]
    assert all(abs(count - 200) < 60 for count in Counter(int(number * 10) for number in numbers).values())
    assert unit_hash(0, "a") == unit_hash(0, "a")
    assert 0 <= min(numbers) < max(numbers) < 1
