"""Losses over several pairs against naive loops."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.losses import list_shares, plackett_luce_loss, ranking_loss, response_rank_loss, spread_groups
from tests import reference
from tests.float64 import same

REWARDS = st.lists(st.floats(-30, 30), min_size=2, max_size=6)


def pairs_of(lists: list[list[float]]) -> dict[str, torch.Tensor]:
    """All pairs of every list, whose rewards stand best response first, in the manner of a batch."""
    rows = [
        (better, worse, number, i, len(rewards) * (len(rewards) - 1) / 2)
        for number, rewards in enumerate(lists)
        for (i, better), (_, worse) in itertools.combinations(enumerate(rewards), 2)
    ]
    chosen, rejected, group, side, size = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)
    )
    weight = len(rows) / len(lists) / size
    return {"chosen": chosen, "rejected": rejected, "group": group, "side": side, "weight": weight}


@settings(max_examples=100)
@given(st.lists(REWARDS, min_size=1, max_size=4))
def test_shares_make_a_mean_over_pairs_one_over_lists(lists: list[list[float]]) -> None:
    """The weights that a batch of lists has; those of plain pairs are 1 to the last bit."""
    made = pairs_of(lists)
    torch.testing.assert_close(list_shares(made["group"]), made["weight"], rtol=1e-12, atol=0)
    assert list_shares(torch.arange(len(made["group"]))).tolist() == [1.0] * len(made["group"])


@settings(max_examples=100)
@given(st.lists(REWARDS, min_size=1, max_size=4))
def test_plackett_luce_equals_the_reference(lists: list[list[float]]) -> None:
    expected = sum(map(reference.plackett_luce, lists)) / len(lists)
    assert float(plackett_luce_loss(**pairs_of(lists))) == same(expected)


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(-30, 30), min_size=2, max_size=2), min_size=1, max_size=6))
def test_plackett_luce_of_two_is_bradley_terry(lists: list[list[float]]) -> None:
    pairs = pairs_of(lists)
    assert float(plackett_luce_loss(**pairs)) == same(float(ranking_loss(pairs["chosen"], pairs["rejected"])))


def test_tied_responses_are_not_ranked_against_each_other() -> None:
    """Rewards 2 | 1, 0 of which the last two are tied: -log(e^2 / (e^2 + e^1 + e^0))."""
    chosen, rejected = torch.tensor([2.0, 2.0]).double(), torch.tensor([1.0, 0.0]).double()
    zeros = torch.zeros(2, dtype=torch.long)
    loss = plackett_luce_loss(chosen, rejected, zeros, zeros, torch.ones(2))
    assert float(loss) == same(-2 + float(torch.logsumexp(torch.tensor([2.0, 1.0, 0.0]).double(), 0)))


@settings(max_examples=100)
@given(st.lists(REWARDS, min_size=1, max_size=3), st.randoms())
def test_response_rank_equals_the_reference(groups: list[list[float]], random: Any) -> None:
    strengths = [random.sample(range(10), len(margins)) for margins in groups]
    sizes = [len(margins) for margins in groups]
    expected = sum(
        reference.response_rank(margins, ranks) * len(margins) for margins, ranks in zip(groups, strengths, strict=True)
    )
    loss = response_rank_loss(
        torch.tensor([*itertools.chain(*groups)], dtype=torch.float64),
        torch.tensor([*itertools.chain(*strengths)], dtype=torch.float64),
        torch.arange(len(groups)).repeat_interleave(torch.tensor(sizes)),
    )
    assert float(loss) == same(expected / sum(sizes))


@settings(max_examples=50)
@given(REWARDS)
def test_response_rank_of_groups_of_one_is_bradley_terry(margins: list[float]) -> None:
    margin = torch.tensor(margins, dtype=torch.float64)
    alone = response_rank_loss(margin, margin, torch.arange(len(margin)))
    unknown = response_rank_loss(margin, torch.full_like(margin, torch.nan), torch.zeros(len(margin)))
    expected = same(float(ranking_loss(margin, torch.zeros_like(margin))))
    assert float(alone) == expected
    assert float(unknown) == expected


def test_groups_hold_strengths_that_lie_far_apart() -> None:
    strength = torch.tensor([0.0, 5.0, 1.0, 4.0, 2.0, 3.0])
    assert spread_groups(strength, 3).tolist() == [0, 1, 1, 0, 0, 1]
    assert spread_groups(strength, 1).unique().numel() == 6
    assert spread_groups(strength, 100).tolist() == [0] * 6
