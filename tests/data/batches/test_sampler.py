"""The plan of an epoch: every pair once, equal batch counts, budgets, the global mean, orders that help, resuming."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.batch import LayoutName, Sample
from lightning_rm.data.batches.layouts import LAYOUTS, SHORTEST_SHARED, shared_prefix
from lightning_rm.data.batches.orders import GRID_TOKENS, Order, Rows, by_prompt
from lightning_rm.data.batches.sampler import MicroBatch, PairBatchSampler
from tests import reference
from tests.float64 import same

ORDERS: tuple[Order, ...] = ("random", "length", "prompt")


def lengths_of(num_pairs: int, longest: int = 50) -> Rows:
    return np.random.default_rng(num_pairs).integers(2, longest + 1, (num_pairs, 2))


def one_prompt_each(num_pairs: int) -> Rows:
    return np.arange(num_pairs)


def clique(num_prompts: int, num_responses: int) -> tuple[Rows, Rows]:
    """All pairs of a prompt's responses, for several prompts: prompt_index (N,), sequence_index (N, 2)."""
    pairs = np.array(list(combinations(range(num_responses), 2)))
    sequence_index = np.concatenate([pairs + prompt * num_responses for prompt in range(num_prompts)])
    return np.repeat(np.arange(num_prompts), len(pairs)), sequence_index


def ranks(world_size: int, total: int, epoch: int = 0, **options: object) -> list[list[MicroBatch]]:
    """What each rank reads in an epoch."""
    read = []
    for rank in range(world_size):
        sampler = PairBatchSampler(
            lengths_of(total), one_prompt_each(total), rank=rank, world_size=world_size, **options
        )
        sampler.set_epoch(epoch)
        read.append(list(sampler))
        assert len(read[-1]) == len(sampler)
    return read


def valid_rows(micro_batches: list[MicroBatch]) -> list[int]:
    return [row for batch in micro_batches for row, valid in zip(batch.rows, batch.valid, strict=True) if valid]


plans = st.fixed_dictionaries(
    {
        "total": st.integers(1, 70),
        "world_size": st.integers(1, 5),
        "accumulate": st.integers(1, 4),
        "batch": st.integers(1, 9),
        "order": st.sampled_from(ORDERS),
        "shuffle": st.booleans(),
        "budget": st.booleans(),
        "epoch": st.integers(0, 3),
    }
)


@settings(max_examples=150)
@given(plan=plans)
def test_every_pair_once_in_equal_batch_counts_and_steps_on_the_mean(plan: dict[str, object]) -> None:
    size = {"num_tokens": 110 * plan.pop("batch")} if plan.pop("budget") else {"num_pairs": plan.pop("batch")}
    read = ranks(**(plan | size))
    assert len({len(micro_batches) for micro_batches in read}) == 1
    assert sorted(row for micro_batches in read for row in valid_rows(micro_batches)) == list(range(plan["total"]))
    assert all(batch.rows and len(batch.rows) == len(batch.valid) for batches in read for batch in batches)
    # An optimizer step as Lightning makes it: losses divided by accumulate, gradients averaged over ranks.
    value = np.random.default_rng(0).normal(size=plan["total"])
    accumulate, world_size = plan["accumulate"], plan["world_size"]
    for start in range(0, len(read[0]), accumulate):
        step = [micro_batches[start : start + accumulate] for micro_batches in read]
        gradient = sum(
            batch.scale * value[list(batch.rows)].mean() / accumulate / world_size for part in step for batch in part
        )
        rows = [row for part in step for row in valid_rows(part)]
        assert gradient == pytest.approx(reference.mean(value[rows].tolist()), abs=1e-12)


def test_equal_micro_batches_have_scale_one() -> None:
    """16 pairs, 2 ranks of 2 pairs, 2 micro-steps a step: nothing to compensate."""
    scales = {batch.scale for rank in ranks(2, 16, num_pairs=2, accumulate=2) for batch in rank}
    assert scales == {1.0}


def test_scale_of_a_short_accumulation_window() -> None:
    """5 pairs of 2 a batch, accumulate 2: steps of 2 + 2 and of 1 pair, which Lightning still divides by 2."""
    (rank,) = ranks(1, 5, num_pairs=2, accumulate=2)
    assert [(len(batch.rows), batch.scale) for batch in rank] == [(2, 1.0), (2, 1.0), (1, 2.0)]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_text_counts_by_its_tokens(accumulate: int) -> None:
    """Scaled both ways, a micro-batch has the share of its step's text tokens that are its own."""
    text = np.random.default_rng(0).integers(0, 9, 25)
    read = ranks(2, 25, num_pairs=2, accumulate=accumulate, text_lengths=text)
    for start in range(0, len(read[0]), accumulate):
        step = [batch for rank in read for batch in rank[start : start + accumulate]]
        num_tokens = [sum(int(text[row]) for row in valid_rows([batch])) for batch in step]
        shares = [batch.scale * batch.text_share / (2 * accumulate) for batch in step]
        assert shares == same([number / sum(num_tokens) for number in num_tokens])
    (no_text, *_) = ranks(1, 4, num_pairs=2, accumulate=2, text_lengths=np.zeros(4, np.int64))[0]
    assert (no_text.scale, no_text.text_share) == (1.0, 1.0)


def test_the_last_step_is_halved_until_every_rank_has_pairs() -> None:
    """4 ranks of 3 pairs, 43 in all: after 3 micro-steps of 12, batches of 3, 3 and 1 are left for 4 ranks."""
    read = ranks(4, 43, num_pairs=3)
    assert [[len(rank[step].rows) for rank in read] for step in range(4)] == [[3, 3, 3, 3]] * 3 + [[2, 1, 3, 1]]
    assert sum(rank[3].scale for rank in read) == same(4)


def test_a_rank_without_pairs_gets_a_filler() -> None:
    """One pair for two ranks: the other rank reads it too, not valid and with scale 0."""
    first, second = (rank[0] for rank in ranks(2, 1, num_pairs=4))
    assert (first.valid, first.scale) == ((True,), 2.0)
    assert second == MicroBatch(rows=first.rows, valid=(False,), scale=0.0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [{"num_pairs": 4}, {"num_tokens": 300}])
def test_same_seed_same_epoch_same_plan(order: Order, size: dict[str, int]) -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [list(batch.rows) for batch in ranks(1, 60, epoch=epoch, order=order, seed=seed, **size)[0]]

    assert plan(0, 0) == plan(0, 0)
    assert plan(0, 0) != plan(0, 1)
    assert plan(0, 0) != plan(1, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_evaluation_has_one_order(order: Order) -> None:
    first, second = (ranks(2, 21, epoch=epoch, num_pairs=4, order=order, shuffle=False) for epoch in (0, 5))
    assert first == second


def test_random_order_is_the_same_however_a_step_is_divided() -> None:
    """8 pairs an optimizer step: 1 rank of 8, 2 of 4, 4 of 1 accumulated twice."""

    def steps(world_size: int, num_pairs: int, accumulate: int) -> list[list[int]]:
        read = ranks(world_size, 45, num_pairs=num_pairs, accumulate=accumulate)
        starts = range(0, len(read[0]), accumulate)
        return [sorted(valid_rows([b for rank in read for b in rank[i : i + accumulate]])) for i in starts]

    assert steps(1, 8, 1) == steps(2, 4, 1) == steps(4, 1, 2) == steps(1, 2, 4)


def test_length_order_is_the_same_however_a_micro_step_is_divided() -> None:
    one, two = (ranks(w, 200, num_pairs=8 // w, order="length", accumulate=3) for w in (1, 2))
    assert [sorted(b.rows) for b in one[0]] == [sorted(a.rows + b.rows) for a, b in zip(*two, strict=True)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_pairs_that_meet_do_not_depend_on_the_layout(order: Order) -> None:
    read = [ranks(1, 100, num_pairs=8, order=order, token_cost=layout) for layout in LAYOUTS]
    assert read[0] == read[1] == read[2]


@pytest.mark.parametrize("token_cost", ["padded", "packed"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_token_budget_is_kept_and_used(order: Order, token_cost: LayoutName) -> None:
    lengths, budget = lengths_of(300), 400
    read = ranks(3, 300, num_tokens=budget, token_cost=token_cost, order=order)
    grids = [
        reference.grid_tokens(lengths[list(batch.rows)].ravel().tolist(), token_cost) for rank in read for batch in rank
    ]
    assert max(grids) <= budget
    assert np.mean(grids) > 0.75 * budget


def test_a_token_budget_counts_a_shared_response_once() -> None:
    """33 responses of 10 tokens: 200 packed tokens hold 20 of them, in far more than 10 pairs."""
    prompt_index, sequence_index = clique(1, 33)
    lengths = np.full_like(sequence_index, 10)
    sampler = PairBatchSampler(
        lengths, prompt_index, num_tokens=200, order="prompt", token_cost="packed", sequence_index=sequence_index
    )
    batches = [list(batch.rows) for batch in sampler]
    assert all(len(np.unique(sequence_index[rows])) <= 20 for rows in batches)
    assert np.mean([len(rows) for rows in batches]) > 40


@settings(max_examples=60)
@given(data=st.data(), order=st.sampled_from(ORDERS))
def test_a_token_budget_holds_on_the_grid_of_shared_prefixes(data: st.DataObject, order: Order) -> None:
    """Prompts of 0 to 40 tokens, many of which begin alike, with one to four pairs each, laid out as they will be."""
    draw = random.Random(data.draw(st.integers(0, 9999)))
    steady = data.draw(st.sampled_from([None, 15, 30]))  # longer sequences share no prompt with others
    systems = [[], [60 + draw.randrange(3)] * draw.randrange(4, 12)]
    samples: list[Sample] = []
    for _ in range(data.draw(st.integers(1, 12))):
        prompt = [*draw.choice(systems), *(draw.randrange(3) for _ in range(draw.randrange(30)))]
        responses = [[100 + n % 3, *(draw.randrange(3) for _ in range(draw.randrange(20)))] for n in range(4)]
        for _ in range(draw.randrange(1, 5)):
            chosen, rejected = draw.sample(responses, 2)
            samples.append(Sample([prompt + chosen, prompt + rejected], len(prompt)))
    lengths = np.array([[len(sequence) for sequence in sample.sequences] for sample in samples])
    prompts = [tuple(sample.sequences[0][: sample.prompt_length]) for sample in samples]
    shared = np.array([len(prompt) if len(prompt) >= SHORTEST_SHARED else 0 for prompt in prompts])
    sequences, numbers = dict[tuple[int, ...], int](), dict[tuple[int, ...], int]()
    sampler = PairBatchSampler(
        lengths,
        np.arange(len(samples)),
        num_tokens=130,
        order=order,
        token_cost="shared_prefix",
        sequence_index=np.array(
            [[sequences.setdefault(tuple(s), len(sequences)) for s in sample.sequences] for sample in samples]
        ),
        prompts=(shared, np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])),
        steady_tokens=steady,
    )
    batches = [batch.rows for batch in sampler]
    assert sorted(row for rows in batches for row in rows) == list(range(len(samples)))
    for rows in batches:
        assert shared_prefix([samples[row] for row in rows], "last", 0, steady).num_tokens <= 130


def test_a_token_budget_counts_a_shared_prompt_once() -> None:
    """Ten pairs of one prompt of 50 tokens, responses of 5: 50 + 7 + 10 * 2 * 5 tokens fit into 160, one pair alone."""
    lengths, prompt_index = np.full((10, 2), 55), np.zeros(10, dtype=np.int64)
    options = {"num_tokens": 160, "order": "prompt", "token_cost": "shared_prefix"}
    shared = PairBatchSampler(lengths, prompt_index, prompts=(np.full(10, 50), prompt_index), **options)
    assert [len(batch.rows) for batch in shared] == [10]
    assert {len(batch.rows) for batch in PairBatchSampler(lengths, prompt_index, **options)} == {1}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_token_budget_counts_the_responses_that_a_list_has(layout: LayoutName) -> None:
    """Lists of 2 and of 4 responses to prompts of 40 tokens: what a shorter list lacks neither takes room nor gives
    any.
    """
    lists = [[[row, *range(1, 40), *[100] * (10 + place)] for place in range(2 + row % 2 * 2)] for row in range(24)]
    lengths = np.array([[len(sequence) for sequence in found] + [0] * (4 - len(found)) for found in lists])
    prompts = (np.full(24, 40), np.arange(24)) if layout == "shared_prefix" else None
    sampler = PairBatchSampler(lengths, num_tokens=600, token_cost=layout, prompts=prompts)
    grids: list[int] = []
    for batch in sampler:
        pairs = [Sample(both, 40) for row in batch.rows for both in combinations(lists[row], 2)]
        grids.append(LAYOUTS[layout](pairs, "last", 0).input_ids.numel())
    assert max(grids) <= 600
    assert np.mean(grids) > (0.5 if prompts else 0.6) * 600  # of a shared prompt the most that it may take is counted


def test_a_token_budget_makes_epochs_of_one_length() -> None:
    sampler = PairBatchSampler(lengths_of(200), one_prompt_each(200), num_tokens=500, order="length")
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs.append([batch.rows for batch in sampler])
    assert {len(epoch) for epoch in epochs} == {len(sampler)}
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_length_order_pads_little() -> None:
    """400 pairs of 2 to 50 tokens, twice the shortest's cells are padding at random and a fraction by length."""
    lengths = np.repeat(lengths_of(400)[:, :1], 2, axis=1)

    def padding(order: Order) -> float:
        sampler = PairBatchSampler(lengths, one_prompt_each(400), num_pairs=8, order=order)
        grid = sum(GRID_TOKENS["padded"](lengths[list(batch.rows)].ravel().tolist()) for batch in sampler)
        return 1 - lengths.sum() / grid

    assert padding("random") > 0.35
    assert padding("length") < 0.05


def test_length_order_leaves_the_rest_over_at_random() -> None:
    """The short last batch is not the shortest pairs of all: over 20 epochs its mean length is near the mean."""
    lengths = np.repeat(np.arange(1, 104)[:, None], 2, axis=1)
    sampler = PairBatchSampler(lengths, one_prompt_each(103), num_pairs=10, order="length")
    last = [sampler.plan(epoch)[-1][0] for epoch in range(20)]
    assert {len(rows) for rows in last} == {3}
    assert abs(lengths[np.concatenate(last)].mean() - 52) < 12


def test_prompt_order_reads_far_fewer_sequences() -> None:
    """Votes on 33 arguments a prompt: 32 pairs hold 64 sequences, about 16 of them distinct in this order."""
    prompt_index, sequence_index = clique(4, 33)
    lengths = np.full_like(sequence_index, 10)

    def distinct(order: Order) -> float:
        sampler = PairBatchSampler(lengths, prompt_index, num_pairs=32, order=order, sequence_index=sequence_index)
        return float(np.mean([len(np.unique(sequence_index[list(batch.rows)])) for batch in sampler]))

    assert distinct("random") > 45
    assert distinct("prompt") < 17.5


def test_prompt_order_keeps_small_prompts_together() -> None:
    """4 pairs a prompt and 8 a batch: a batch is two prompts, whole."""
    prompt_index = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 4))
    sampler = PairBatchSampler(lengths_of(40), prompt_index, num_pairs=8, order="prompt")
    batches = [prompt_index[list(batch.rows)] for batch in sampler]
    assert [len(np.unique(prompts)) for prompts in batches] == [2] * 5


def test_prompt_order_goes_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four responses in blocks of two: one pair within the first, four between, one within the second."""
    monkeypatch.setattr("lightning_rm.data.batches.orders.BLOCK", 2)
    prompt_index, sequence_index = clique(1, 4)
    rows = by_prompt(np.arange(6), prompt_index, sequence_index, np.random.default_rng(0))
    first, second = (set(sequence_index[rows[i]].tolist()) for i in (0, 5))
    assert first.isdisjoint(second)
    assert sorted(rows.tolist()) == list(range(6))


def sampler_of_50(first: int, stop: int) -> PairBatchSampler:
    return PairBatchSampler(lengths_of(50), one_prompt_each(50), num_pairs=4, accumulate=2, span=lambda: (first, stop))


def test_span_yields_the_rest_of_the_epoch() -> None:
    """13 micro-batches; the epoch's length stays 13 wherever an iteration starts."""
    whole = list(sampler_of_50(0, 13))
    assert len(whole) == 13
    assert list(sampler_of_50(5, 13)) == whole[5:]
    assert list(sampler_of_50(13, 13)) == []
    assert len(sampler_of_50(5, 13)) == 13


def test_a_limit_ends_the_last_step() -> None:
    """Stopped after 3 micro-batches with accumulate 2, the second step holds 4 pairs alone, divided by 2."""
    assert [batch.scale for batch in sampler_of_50(0, 3)] == [1.0, 1.0, 2.0]


def test_a_pair_over_the_budget_is_named() -> None:
    lengths = np.array([[3, 4], [30, 20]])
    with pytest.raises(ValueError, match="pair 1 has 30 and 20 tokens, 60 on a padded grid: over the budget of 59 "):
        PairBatchSampler(lengths, one_prompt_each(2), num_tokens=59)
    with pytest.raises(ValueError, match="50 on a packed grid"):
        PairBatchSampler(lengths, one_prompt_each(2), num_tokens=49, token_cost="packed")
    assert len(PairBatchSampler(lengths, one_prompt_each(2), num_tokens=60)) == 2


@pytest.mark.parametrize("size", [{}, {"num_pairs": 2, "num_tokens": 100}, {"num_pairs": 0}])
def test_one_size_is_needed(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="num_pairs or num_tokens"):
        PairBatchSampler(lengths_of(4), one_prompt_each(4), **size)


def test_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        PairBatchSampler(np.empty((0, 2), dtype=np.int64), one_prompt_each(0), num_pairs=1)


def test_an_unknown_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="order='lenght'; it must be one of random, length, prompt"):
        PairBatchSampler(lengths_of(4), one_prompt_each(4), num_pairs=1, order="lenght")


def test_a_window_begins_with_the_steps_of_its_responses() -> None:
    """10 micro-batches an epoch by fours: windows of 4, 4 and 2; epoch 1 starts at step 10."""

    def steps(epoch: int, **options: object) -> list[tuple[int, ...]]:
        (batches,) = ranks(1, 20, epoch, num_pairs=2, accumulate=4, with_responses=True, **options)
        return [batch.response_steps for batch in batches]

    none = [()] * 3
    assert steps(0) == [(0, 1, 2, 3), *none, (4, 5, 6, 7), *none, (8, 9), ()]
    assert steps(1) == [(10, 11, 12, 13), *none, (14, 15, 16, 17), *none, (18, 19), ()]
    assert steps(1, shuffle=False) == steps(0)


@pytest.mark.parametrize(("first", "stop"), [(0, 10), (4, 10), (5, 10), (8, 9), (0, 3)])
def test_responses_of_a_part_of_an_epoch(first: int, stop: int) -> None:
    """The window that `first` stands in is named whole, up to the stop, by the first that is read of it."""
    sampler = PairBatchSampler(
        lengths_of(20),
        one_prompt_each(20),
        num_pairs=2,
        accumulate=4,
        span=lambda: (first, stop),
        with_responses=True,
    )
    read = list(sampler)
    assert len(read) == stop - first
    seen: set[int] = set()
    for place, batch in zip(range(first, stop), read, strict=True):
        window = place // 4
        expected = () if window in seen else tuple(step for step in range(stop) if step // 4 == window)
        assert batch.response_steps == expected
        seen.add(window)


def test_pairs_alone_name_no_responses() -> None:
    assert {batch.response_steps for batches in ranks(2, 20, num_pairs=2) for batch in batches} == {()}


def shuffling(order: Order, lengths: Rows) -> tuple[float, float, float]:
    """Of an epoch: correlation of a pair's place with its row, chi2 / dof of place by row in tenths, and of how many of
    ten shards a batch of 32 has pairs.
    """
    total = len(lengths)
    batches = list(PairBatchSampler(np.stack([lengths, lengths], 1), num_pairs=32, order=order, seed=1))
    rows = np.array([row for batch in batches for row in batch.rows])
    place = np.arange(total)
    tenths = np.histogram2d(place, rows, bins=10)[0]
    expected = total / 100
    shards = [len({row * 10 // total for row in batch.rows}) for batch in batches]
    return (
        float(np.corrcoef(place, rows)[0, 1]),
        float(((tenths - expected) ** 2).sum() / expected / 81),
        np.mean(shards),
    )


def test_an_epoch_is_shuffled_over_the_whole_set() -> None:
    """64,000 pairs: a uniform shuffle has correlations of .004, chi2 / dof of 1 and 9.66 of ten shards a batch.

    Order `length` is one too where a file's order says nothing of lengths. In a file sorted by length its batches, all
    alike in length, are of neighbours; when they come is as random as ever.
    """
    total = 64_000
    lengths = np.random.default_rng(0).integers(5, 500, total)
    for order in ("random", "length"):
        correlation, chi2, shards = shuffling(order, lengths)
        assert abs(correlation) < 0.02
        assert chi2 < 1.7
        assert shards == pytest.approx(9.66, abs=0.05)
    assert shuffling("random", np.sort(lengths))[2] == pytest.approx(9.66, abs=0.05)
    correlation, _, shards = shuffling("length", np.sort(lengths))
    assert abs(correlation) < 0.06
    assert shards < 1.5
