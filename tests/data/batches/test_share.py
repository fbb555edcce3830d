"""Micro-steps of an optimizer step, and scales that make each step the mean over its pairs."""

from __future__ import annotations

import pytest

from lightning_rm.data.batches.share import scale_of, step_around


def test_the_micro_steps_of_a_step_stop_where_training_does() -> None:
    """Seven micro-steps by fours: 0 1 2 3 | 4 5 6."""
    assert [list(step_around(place, 4, 7)) for place in range(7)] == [[0, 1, 2, 3]] * 4 + [[4, 5, 6]] * 3


@pytest.mark.parametrize("pairs", [[[4, 4], [4, 4]], [[4, 3]], [[5, 0], [1, 2], [7, 7]]])
def test_scaled_means_make_the_mean_over_the_step(pairs: list[list[int]]) -> None:
    """Pairs by micro-step and rank, each with a loss of its own; divided as Lightning and the ranks divide them."""
    accumulate, world_size = 4, len(pairs[0])
    in_step = sum(map(sum, pairs))
    means = [[10.0 * step + rank for rank in range(world_size)] for step in range(len(pairs))]
    scaled = sum(
        mean * scale_of(num_pairs, in_step, world_size, accumulate) / accumulate / world_size
        for read, of_ranks in zip(pairs, means, strict=True)
        for num_pairs, mean in zip(read, of_ranks, strict=True)
    )
    over_pairs = sum(
        mean * num_pairs
        for read, of_ranks in zip(pairs, means, strict=True)
        for num_pairs, mean in zip(read, of_ranks, strict=True)
    )
    assert scaled == pytest.approx(over_pairs / in_step, rel=1e-12)
