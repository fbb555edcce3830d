"""Exact grids of both layouts, after the cases of TRL's preference collator, and what they owe the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_rm.batch import Sample, TokenBatch
from lightning_rm.data.layouts import LAYOUTS, LayoutName, ReadAt, packed, padded

PAIRS = [Sample([[1, 2, 3], [4, 5]], prompt_length=0), Sample([[6, 7], [8]], prompt_length=0)]


def test_padded_one_pair() -> None:
    batch = padded([Sample([[1, 2, 3], [4, 5]])], "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.reward_index.tolist() == [[2], [4]]


def test_padded_pairs() -> None:
    """A row a sequence in order of appearance, chosen before rejected; the index says which is which."""
    batch = padded(PAIRS, "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 0], [6, 7, 0], [8, 0, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2]] * 4
    assert batch.reward_index.tolist() == [[2, 7], [4, 9]]
    assert batch.input_ids.flatten()[batch.reward_index].tolist() == [[3, 7], [5, 8]]


def test_padded_with_another_pad_token() -> None:
    batch = padded(PAIRS, "last", 999)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 999], [6, 7, 999], [8, 999, 999]]
    assert batch.segment_ids.tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_a_pad_id_inside_a_sequence_is_a_token() -> None:
    batch = padded([Sample([[1, 0, 3, 0], [4]])], "last", 0)
    assert batch.segment_ids.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.reward_index.tolist() == [[3], [4]]


def test_packed_pairs() -> None:
    batch = packed(PAIRS, "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2, 3, 3, 4]]
    assert batch.reward_index.tolist() == [[2, 6], [4, 7]]
    assert batch.num_tokens == 8


def test_encoders_are_read_at_the_first_token() -> None:
    assert padded(PAIRS, "first", 0).reward_index.tolist() == [[0, 6], [3, 9]]
    assert packed(PAIRS, "first", 0).reward_index.tolist() == [[0, 5], [3, 7]]


def test_a_sequence_that_stands_twice_is_computed_once() -> None:
    """Three pairs of three responses hold six sequences, three distinct: three rows, read twice each."""
    a, b, c = [1, 2, 3], [1, 4], [1, 5, 6]
    samples = [Sample([a, b]), Sample([b, c]), Sample([a, c])]
    grid = padded(samples, "last", 0)
    assert grid.input_ids.tolist() == [[1, 2, 3], [1, 4, 0], [1, 5, 6]]
    assert grid.reward_index.tolist() == [[2, 4, 2], [4, 8, 8]]
    line = packed(samples, "last", 0)
    assert line.input_ids.tolist() == [[1, 2, 3, 1, 4, 1, 5, 6]]
    assert line.reward_index.tolist() == [[2, 4, 2], [4, 7, 7]]


def test_response_mask_marks_chosen_responses() -> None:
    """Two shared prompt tokens: only what follows them in the chosen sequences is marked."""
    samples = [Sample([[1, 2, 3, 4], [1, 2, 5]], prompt_length=2), Sample([[6, 7], [6, 8, 9]], prompt_length=1)]
    assert padded(samples, "last", 0).response_mask.int().tolist() == [
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    assert packed(samples, "last", 0).response_mask.int().tolist() == [[0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0]]


def test_response_mask_of_a_sequence_chosen_once_and_rejected_once() -> None:
    samples = [Sample([[1, 2], [1, 3]], prompt_length=1), Sample([[1, 4], [1, 2]], prompt_length=1)]
    assert packed(samples, "last", 0).response_mask.int().tolist() == [[0, 1, 0, 0, 0, 1]]


def test_groups_of_any_size() -> None:
    """Five responses to one prompt: (5, 1) places to read at."""
    batch = padded([Sample([[1], [1, 2], [1, 3], [1, 4], [1, 5]])], "last", 0)
    assert batch.reward_index.tolist() == [[0], [3], [5], [7], [9]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mixed_group_sizes_are_an_error(layout: LayoutName) -> None:
    with pytest.raises(ValueError, match=r"one k, got \[2, 3\]"):
        LAYOUTS[layout]([Sample([[1], [2]]), Sample([[1], [2], [3]])], "last", 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_sequence_is_an_error(layout: LayoutName) -> None:
    with pytest.raises(ValueError, match="without tokens"):
        LAYOUTS[layout]([Sample([[1], []])], "last", 0)


sequences = st.lists(st.integers(0, 3), min_size=1, max_size=5)
batches = st.integers(1, 4).flatmap(
    lambda k: st.lists(st.lists(sequences, min_size=k, max_size=k).map(Sample), min_size=1, max_size=5)
)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(samples=batches, read_at=st.sampled_from(["last", "first"]))
def test_every_reward_is_read_in_its_own_sequence(layout: LayoutName, samples: list[Sample], read_at: ReadAt) -> None:
    """Around the place a reward is read at, its segment holds exactly the sequence, positions counting from 0."""
    batch = LAYOUTS[layout](samples, read_at, 7)
    assert batch.reward_index.shape == (len(samples[0].sequences), len(samples))
    assert int((batch.segment_ids > 0).sum()) == sum(map(len, {tuple(s) for x in samples for s in x.sequences}))
    for place, sample in enumerate(samples):
        for which, sequence in enumerate(sample.sequences):
            row, column = divmod(int(batch.reward_index[which, place]), batch.input_ids.shape[1])
            mine = batch.segment_ids[row] == batch.segment_ids[row, column]
            assert batch.input_ids[row][mine].tolist() == sequence
            assert batch.position_ids[row][mine].tolist() == list(range(len(sequence)))
            assert int(batch.position_ids[row, column]) == (len(sequence) - 1 if read_at == "last" else 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_types(layout: LayoutName) -> None:
    batch: TokenBatch = LAYOUTS[layout](PAIRS, "last", 0)
    for name in ("input_ids", "position_ids", "segment_ids", "reward_index"):
        assert getattr(batch, name).dtype == torch.long
    assert batch.response_mask.dtype == torch.bool
    assert batch.response_mask.shape == batch.input_ids.shape
