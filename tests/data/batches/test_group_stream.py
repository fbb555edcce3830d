"""The stream of groups: every group once an epoch over all ranks, at any place, from the seed alone."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_rm.data.batches.group_stream import GroupStream


def read(num_steps: int, num_groups: int, batch_groups: int, world_size: int = 1, seed: int = 0) -> list[int]:
    """All that is read in the first micro-steps, rank after rank."""
    streams = [GroupStream(num_groups, batch_groups, rank, world_size, seed) for rank in range(world_size)]
    return [row for step in range(num_steps) for stream in streams for row in stream.rows(step)]


@given(
    num_groups=st.integers(1, 30), batch_groups=st.integers(1, 8), world_size=st.integers(1, 4), seed=st.integers(0, 9)
)
def test_every_epoch_of_the_stream_holds_every_group_once(
    num_groups: int, batch_groups: int, world_size: int, seed: int
) -> None:
    """Whatever the micro-steps and ranks, cut into pieces of N the rows are permutations."""
    num_steps = -(-3 * num_groups // (batch_groups * world_size))
    rows = iter(read(num_steps, num_groups, batch_groups, world_size, seed))
    for _ in range(3):
        assert sorted(islice(rows, num_groups)) == list(range(num_groups))


def test_ranks_divide_what_one_would_read() -> None:
    """Two ranks with batches of two read what one rank reads with batches of four."""
    assert read(12, 10, 2, world_size=2) == read(12, 10, 4)
    first, second = (GroupStream(10, 2, rank, 2).rows(0) for rank in range(2))
    assert not set(first) & set(second)


def test_a_batch_goes_on_in_the_next_epoch() -> None:
    """5 groups in batches of 3: the second batch has the last two of epoch 0 and the first of epoch 1."""
    stream = GroupStream(5, 3)
    rows = [row for step in range(5) for row in stream.rows(step)]
    assert len(rows) == 15
    assert [sorted(rows[start : start + 5]) for start in (0, 5, 10)] == [list(range(5))] * 3


def test_any_place_can_be_read_without_those_before() -> None:
    whole = [GroupStream(7, 2).rows(step) for step in range(50)]
    assert GroupStream(7, 2).rows(41) == whole[41]
    assert [GroupStream(7, 2).rows(step) for step in reversed(range(50))] == whole[::-1]


def test_epochs_and_seeds_differ() -> None:
    rows = read(2, 100, 100)
    assert rows[:100] != rows[100:]
    assert rows != read(2, 100, 100, seed=1)


def test_a_batch_larger_than_the_set_repeats() -> None:
    assert sorted(GroupStream(2, 6).rows(0)) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("sizes", "message"), [((0, 4), "no groups of responses"), ((4, 0), "batch_groups=0")])
def test_nothing_to_read_is_an_error(sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupStream(*sizes)
