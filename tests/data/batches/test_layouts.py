"""Exact grids of every layout, after the cases of TRL's preference collator, and what they owe the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_rm.batch import LayoutName, ReadAt, Sample, Segments, TokenBatch
from lightning_rm.data.batches import layouts
from lightning_rm.data.batches.layouts import LAYOUTS, packed, padded, shared_prefix

READ_AT: tuple[ReadAt, ...] = ("last", "first")
PAIRS = [Sample([[1, 2, 3], [4, 5]], prompt_length=0), Sample([[6, 7], [8]], prompt_length=0)]


def test_padded_one_pair() -> None:
    batch = padded([Sample([[1, 2, 3], [4, 5]])], "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert batch.mask.int().tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.segments is None
    assert batch.reward_index.tolist() == [[2], [4]]


def test_padded_pairs() -> None:
    """A row a sequence in order of appearance, chosen before rejected; the index says which is which."""
    batch = padded(PAIRS, "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 0], [6, 7, 0], [8, 0, 0]]
    assert batch.mask.int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2]] * 4
    assert batch.reward_index.tolist() == [[2, 7], [4, 9]]
    assert batch.input_ids.flatten()[batch.reward_index].tolist() == [[3, 7], [5, 8]]


def test_padded_with_another_pad_token() -> None:
    batch = padded(PAIRS, "last", 999)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 5, 999], [6, 7, 999], [8, 999, 999]]
    assert batch.mask.int().tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_a_pad_id_inside_a_sequence_is_a_token() -> None:
    batch = padded([Sample([[1, 0, 3, 0], [4]])], "last", 0)
    assert batch.mask.int().tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.reward_index.tolist() == [[3], [4]]


def test_packed_pairs() -> None:
    batch = packed(PAIRS, "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 0]]
    assert batch.segments == Segments((3, 2, 2, 1), (0, 0, 0, 0))
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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sequence_has_one_key_in_every_batch(layout: LayoutName) -> None:
    alone = LAYOUTS[layout]([Sample([[4, 5], [6]])], "last", 0).response_key
    among = LAYOUTS[layout]([*PAIRS, Sample([[6], [6, 7]])], "last", 0).response_key
    assert alone is not None
    assert among is not None
    assert (alone[0, 0], alone[1, 0]) == (among[1, 0], among[0, 2])
    assert among[0, 1] == among[1, 2]
    assert among.unique().numel() == 5


def test_response_index_is_of_chosen_responses() -> None:
    """Two shared prompt tokens: only what follows them in the chosen sequences is read, each from the token before."""
    samples = [Sample([[1, 2, 3, 4], [1, 2, 5]], prompt_length=2), Sample([[6, 7], [6, 8, 9]], prompt_length=1)]
    assert padded(samples, "last", 0).response_index.tolist() == [[1, 2, 8], [2, 3, 9]]
    assert packed(samples, "last", 0).response_index.tolist() == [[1, 2, 7], [2, 3, 8]]


def test_response_index_of_a_sequence_chosen_once_and_rejected_once() -> None:
    samples = [Sample([[1, 2], [1, 3]], prompt_length=1), Sample([[1, 4], [1, 2]], prompt_length=1)]
    assert packed(samples, "last", 0).response_index.tolist() == [[0, 4], [1, 5]]


def test_response_index_without_a_prompt_leaves_the_first_token_out() -> None:
    """Nothing stands before it. A response that is chosen twice counts once."""
    samples = [Sample([[1, 2, 3], [4]]), Sample([[1, 2, 3], [5]])]
    assert padded(samples, "last", 0).response_index.tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_response_index_of_a_sequence_chosen_in_two_rows_has_it_twice(layout: LayoutName) -> None:
    samples = [Sample([[1, 2, 3], [4]], 1, row=row) for row in (5, 5, 6)]
    assert LAYOUTS[layout](samples, "last", 0).response_index.tolist() == [[0, 1, 0, 1], [1, 2, 1, 2]]


def test_shared_prefix_of_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """[prompt | chosen | rejected]: the second and the third segment continue the first."""
    monkeypatch.setattr(layouts, "SHORTEST_SHARED", 2)
    samples = [Sample([[1, 2, 3, 4, 5], [1, 2, 3, 6]], prompt_length=3), Sample([[7], [8, 9]])]
    batch = shared_prefix(samples, "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 0, 1]]
    assert batch.segments == Segments((3, 2, 1, 1, 2), (0, 1, 2, 0, 0))
    assert batch.reward_index.tolist() == [[4, 6], [5, 8]]
    assert batch.response_index.tolist() == [[2, 3], [3, 4]]


def test_shared_prefix_of_responses_that_begin_alike_or_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 2 is a response's end and what three others begin with; 1 2 3 4 is what two of them have in common."""
    monkeypatch.setattr(layouts, "SHORTEST_SHARED", 2)
    batch = shared_prefix([Sample([[1, 2], [1, 2, 3, 4, 5], [1, 2, 3, 4, 6, 7], [1, 2, 8]])], "last", 0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch.segments == Segments((2, 2, 1, 2, 1), (0, 1, 1, 2, 4))
    assert batch.reward_index.tolist() == [[1], [4], [6], [7]]


def test_shared_prefix_shares_nothing_short() -> None:
    """Seven tokens in common are computed twice, eight once."""
    assert shared_prefix([Sample([[*range(7), 10], [*range(7), 11]])], "last", 0).num_tokens == 16
    assert shared_prefix([Sample([[*range(8), 10], [*range(8), 11]])], "last", 0).num_tokens == 10


def test_shared_prefix_shares_little_with_many() -> None:
    """After eight common tokens: four more save eight where three responses share them, and four where two do."""
    beginning, more = list(range(8)), [20, 21, 22, 23]
    three = [[*beginning, *more, response] for response in (30, 31, 32)]
    assert shared_prefix([Sample([*three, [*beginning, 40]])], "last", 0).num_tokens == 8 + 4 + 3 + 1
    assert shared_prefix([Sample([*three[:2], [*beginning, 40]])], "last", 0).num_tokens == 8 + 2 * 5 + 1


def test_shared_prefix_looks_beyond_what_is_too_short_to_share() -> None:
    """All four sequences share their first token, two and two of them ten."""
    pairs = [[1, *([word] * 9), response] for word in (5, 6) for response in (7, 8)]
    assert shared_prefix([Sample(pairs)], "last", 0).num_tokens == 2 * (10 + 2)


def test_shared_prefix_of_an_encoder_is_an_error() -> None:
    with pytest.raises(ValueError, match="layout=packed or padded"):
        shared_prefix(PAIRS, "first", 0)


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


def tokens_seen(batch: TokenBatch, place: int) -> tuple[list[int], list[int]]:
    """Ids and positions of the token at a flat place and of all that its segment and those before it hold up to it."""
    if batch.segments is None:
        row, column = divmod(place, batch.input_ids.shape[1])
        ids, positions = batch.input_ids[row, : column + 1], batch.position_ids[row, : column + 1]
        return ids.tolist(), positions.tolist()
    ends = list(accumulate(batch.segments.lengths))
    number = next(number for number, end in enumerate(ends) if place < end)
    ids, positions, end = list[int](), list[int](), place + 1
    while True:
        start = ends[number] - batch.segments.lengths[number]
        ids = batch.input_ids.flatten()[start:end].tolist() + ids
        positions = batch.position_ids.flatten()[start:end].tolist() + positions
        if not batch.segments.back[number]:
            return ids, positions
        number -= batch.segments.back[number]
        end = ends[number]


@pytest.mark.parametrize("shortest", [1, 2, 8])
@pytest.mark.parametrize("layout", LAYOUTS)
@given(samples=batches)
def test_every_reward_is_read_at_the_end_of_its_own_sequence(
    layout: LayoutName, shortest: int, samples: list[Sample]
) -> None:
    """What the token that a reward is read at sees is the sequence, positions counting from 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "SHORTEST_SHARED", shortest)
        batch = LAYOUTS[layout](samples, "last", 7)
    assert batch.reward_index.shape == (len(samples[0].sequences), len(samples))
    distinct = {tuple(sequence) for sample in samples for sequence in sample.sequences}
    if layout == "shared_prefix" and shortest == 1:
        distinct = {sequence[:end] for sequence in distinct for end in range(1, len(sequence) + 1)}
        assert batch.num_tokens == len(distinct)  # a token for each different beginning: nothing is computed twice
    elif layout != "shared_prefix":
        assert int(batch.mask.sum()) == sum(map(len, distinct))
    for place, sample in enumerate(samples):
        for which, sequence in enumerate(sample.sequences):
            ids, positions = tokens_seen(batch, int(batch.reward_index[which, place]))
            assert ids == sequence
            assert positions == list(range(len(sequence)))


@pytest.mark.parametrize("layout", ["padded", "packed"])
@given(samples=batches)
def test_every_reward_of_an_encoder_is_read_at_the_start_of_its_own_sequence(
    layout: LayoutName, samples: list[Sample]
) -> None:
    last, first = (LAYOUTS[layout](samples, read_at, 7).reward_index for read_at in READ_AT)
    lengths = torch.tensor([[len(sequence) for sequence in sample.sequences] for sample in samples]).T
    assert torch.equal(first, last - lengths + 1)


@given(samples=batches, prompt_length=st.integers(0, 2))
def test_every_layout_reads_the_same_responses(samples: list[Sample], prompt_length: int) -> None:
    """The tokens of chosen responses, and the one before each."""
    samples = [replace(sample, prompt_length=prompt_length) for sample in samples]
    read: list[list[list[int]]] = []
    for layout in LAYOUTS.values():
        batch = layout(samples, "last", 7)
        read.append(batch.input_ids.flatten()[batch.response_index].tolist())
    assert read[0] == read[1] == read[2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_types(layout: LayoutName) -> None:
    batch: TokenBatch = LAYOUTS[layout](PAIRS, "last", 0)
    for name in ("input_ids", "position_ids", "reward_index", "response_index"):
        assert getattr(batch, name).dtype == torch.long
    assert batch.mask.dtype == torch.bool
    assert batch.mask.shape == batch.input_ids.shape
