"""Ordinal losses against the probabilities they are made of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.losses import (
    all_threshold_losses,
    batch_centering_loss,
    correlation,
    ordinal_losses,
    ranking_losses,
    trimmed_weight,
)
from tests import reference
from tests.float64 import same

STEPS = st.lists(st.floats(0.1, 3), min_size=1, max_size=4)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=200)
@given(STEPS, st.floats(-8, 8), st.data())
def test_the_likelihood_is_that_of_the_level(steps: list[float], margin: float, data: st.DataObject) -> None:
    thresholds = doubles(*steps).cumsum(0)
    level = data.draw(st.integers(-len(steps), len(steps)))
    loss = float(ordinal_losses(doubles(margin), doubles(level), thresholds))
    assert loss == pytest.approx(reference.ordinal(margin, level, thresholds.tolist()), rel=1e-9)
    turned_round = float(ordinal_losses(doubles(-margin), doubles(-level), thresholds))
    assert loss == same(turned_round)


@settings(max_examples=50)
@given(STEPS, st.floats(-8, 8))
def test_the_probabilities_of_all_levels_add_up_to_one(steps: list[float], margin: float) -> None:
    levels = torch.arange(-len(steps), len(steps) + 1)
    losses = ordinal_losses(doubles(*[margin] * len(levels)), levels, doubles(*steps).cumsum(0))
    assert float((-losses).exp().sum()) == same(1.0)


@pytest.mark.parametrize("margin", [-500.0, -3.0, 0.0, 2.5, 500.0])
def test_one_level_without_ties_is_bradley_terry(margin: float) -> None:
    zero = doubles(0.0)
    for level in (1.0, -1.0):
        losses = ordinal_losses(doubles(margin), doubles(level), zero)
        expected = -reference.log_sigmoid(level * margin)
        assert float(losses) == same(expected)
        assert float(all_threshold_losses(doubles(margin), doubles(level), zero)) == same(2 * expected)


@pytest.mark.parametrize("margin", [-1000.0, -40.0, 40.0, 1000.0])
def test_every_level_keeps_its_gradient_far_away(margin: float) -> None:
    """The slope at margins beyond a level's thresholds is that of a logistic loss: 1 in size, towards the level."""
    d = doubles(*[margin] * 5).requires_grad_()
    thresholds = doubles(1.0, 2.0).requires_grad_()
    ordinal_losses(d, torch.arange(-2, 3), thresholds).sum().backward()
    assert d.grad is not None
    assert thresholds.grad is not None
    assert thresholds.grad.isfinite().all()
    towards = d.grad * math.copysign(1, margin)
    assert towards[1:4].tolist() == same([1, 1, 1])
    assert towards[0 if margin > 0 else 4].item() == same(1)
    assert towards[4 if margin > 0 else 0].item() == same(0)


def test_all_thresholds_is_a_ranking_loss_at_each() -> None:
    """Level 1 of 2 with thresholds -2, -1, 1, 2: above the first three and below the last."""
    found = float(all_threshold_losses(doubles(0.3), doubles(1), doubles(1.0, 2.0)))
    sided = [(-2, 1), (-1, 1), (1, 1), (2, -1)]
    assert found == same(sum(-reference.log_sigmoid(side * (0.3 - threshold)) for threshold, side in sided))


def test_the_sigmoid_loss_is_symmetric() -> None:
    chosen, rejected = doubles(2.0, -1.0, 50.0), doubles(0.0, 3.0, 0.0)
    losses = [ranking_losses(chosen, rejected, label=label, loss="sigmoid") for label in (1.0, 0.0)]
    assert (losses[0] + losses[1]).tolist() == same([1, 1, 1])
    assert losses[0].tolist() == same([reference.sigmoid(-2), reference.sigmoid(4), reference.sigmoid(-50)])
    with pytest.raises(ValueError, match="loss='hinge'"):
        ranking_losses(chosen, rejected, loss="hinge")  # pyright: ignore[reportArgumentType]


def test_the_largest_losses_are_trimmed() -> None:
    losses = doubles(0.1, 5.0, 0.2, 4.0, 0.3)
    assert trimmed_weight(losses, losses, 0.4).tolist() == same([5 / 3, 0, 5 / 3, 0, 5 / 3])
    assert trimmed_weight(losses[:2], losses, 0.4).tolist() == same([5 / 3, 0])
    assert trimmed_weight(losses, losses, 0.0).tolist() == same([1] * 5)
    assert int((trimmed_weight(torch.arange(100), torch.arange(100), 0.29) == 0).sum()) == 29


def test_correlation_is_pearsons_and_0_where_one_side_is_constant() -> None:
    x, y = [1.0, 2.0, 4.0, -3.0], [3.0, 1.0, 2.5, 9.0]
    assert float(correlation(doubles(*x), doubles(*y))) == same(reference.pearson(x, y))
    of_members = torch.tensor([x, y, x], dtype=torch.float64).T
    assert correlation(of_members, doubles(*y)).tolist() == same([reference.pearson(x, y), 1, reference.pearson(x, y)])
    for constant in (doubles(2.0, 2.0), torch.full((7,), 0.1)):  # whose mean is not 0.1 in float32
        value = correlation(constant.requires_grad_(), torch.arange(len(constant)) ** 2)
        value.backward()
        assert constant.grad is not None
        assert (float(value), constant.grad.abs().sum().item()) == (0, 0)


def test_batch_centering_is_of_the_mean_alone() -> None:
    """Rewards 3, -1 and -4, 2 have the mean 0, and each pair's sum is not."""
    assert float(batch_centering_loss(doubles(3.0, -4.0), doubles(-1.0, 2.0))) == 0
    assert float(batch_centering_loss(doubles(3.0, 1.0), doubles(1.0, 3.0))) == same(4)
    of_members = torch.tensor([[2.0, -2.0], [2.0, -2.0]]).double()  # each has a mean of its own
    assert float(batch_centering_loss(of_members, of_members)) == same(4)
