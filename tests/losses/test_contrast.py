from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.losses import difference_loss, simcse_loss, sinkhorn, swav_loss
from lightning_rm.losses.geometry import alignment, effective_rank, uniformity, usage_entropy
from tests import reference
from tests.float64 import BOUND, assert_same, same

SEEDS = st.integers(0, 2**31 - 1)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=50)
@given(seed=SEEDS, samples=st.integers(1, 6), temperature=st.floats(0.1, 2))
def test_simcse_equals_the_reference(seed: int, samples: int, temperature: float) -> None:
    first, second = drawn(2, samples, 5, seed=seed)
    expected = reference.simcse(first.double().tolist(), second.double().tolist(), temperature)
    assert float(simcse_loss(first, second, temperature)) == same(expected)


def test_simcse_counts_a_term_by_its_weight() -> None:
    first, second = drawn(2, 4, 5)
    weight = torch.tensor([[1.0, 1, 3, 1], [1, 1, 1, 0], [2, 1, 1, 1], [1, 0, 1, 1]], dtype=torch.float64)
    expected = reference.simcse(first.double().tolist(), second.double().tolist(), 0.3, weight.tolist())
    assert float(simcse_loss(first, second, 0.3, log_weight=weight.log())) == same(expected)


def test_simcse_of_two_samples_by_hand() -> None:
    """Both views equal, the two samples orthogonal, temperature 1: -log(e / (e + 1)) = 0.3133."""
    views = torch.eye(2, dtype=torch.float64)
    assert float(simcse_loss(views, views, 1.0)) == same(math.log1p(math.exp(-1)))


@settings(max_examples=50)
@given(seed=SEEDS, samples=st.integers(1, 8), prototypes=st.integers(2, 6), iterations=st.integers(1, 5))
def test_sinkhorn_equals_the_reference(seed: int, samples: int, prototypes: int, iterations: int) -> None:
    scores = drawn(samples, prototypes, seed=seed).tanh()
    expected = reference.sinkhorn(scores.double().tolist(), 0.1, iterations)
    found = sinkhorn(scores, 0.1, iterations)
    assert_same(found, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=30)
@given(seed=SEEDS, samples=st.integers(2, 12), prototypes=st.integers(2, 12))
def test_codes_are_even_over_prototypes_in_the_limit(seed: int, samples: int, prototypes: int) -> None:
    codes = sinkhorn(drawn(samples, prototypes, seed=seed).tanh(), epsilon=0.5, iterations=200)
    assert_same(codes.sum(1), torch.ones(samples, dtype=torch.float64))
    even = torch.full((prototypes,), samples / prototypes, dtype=torch.float64)
    torch.testing.assert_close(codes.sum(0), even, atol=1e-3, rtol=1e-3)  # 200 iterations are not the limit yet


def test_sinkhorn_is_stable_where_exponentials_are_not() -> None:
    """exp(1 / .001) overflows float32, and exp(-1 / .001) is 0: a whole column would be empty."""
    scores = torch.tensor([[1.0, -1.0, -1.0], [0.9, -1.0, -0.9]])
    codes = sinkhorn(scores, epsilon=0.001)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(1), torch.ones(2))  # in float32, where it would overflow


def test_no_gradient_goes_through_codes() -> None:
    scores = drawn(4, 3).requires_grad_()
    assert not sinkhorn(scores).requires_grad
    codes = drawn(4, 3, seed=1).softmax(1).requires_grad_()
    swav_loss(scores, scores, codes, codes).backward()
    assert scores.grad is not None
    assert scores.grad.abs().sum() > 0
    assert codes.grad is None


@settings(max_examples=50)
@given(seed=SEEDS, samples=st.integers(1, 6), prototypes=st.integers(2, 5), temperature=st.floats(0.1, 2))
def test_swav_equals_the_reference(seed: int, samples: int, prototypes: int, temperature: float) -> None:
    first, second = drawn(2, samples, prototypes, seed=seed).tanh()
    codes = [sinkhorn(scores) for scores in (first, second)]
    lists = [tensor.double().tolist() for tensor in (first, second, *codes)]
    expected = reference.swav(*lists, temperature)
    assert float(swav_loss(first, second, *codes, temperature)) == same(expected)


GROUPS = st.lists(st.lists(st.floats(-20, 20), min_size=2, max_size=6), min_size=1, max_size=4)


@settings(max_examples=100)
@given(groups=GROUPS)
def test_difference_loss_equals_the_reference_for_groups_of_any_size(groups: list[list[float]]) -> None:
    k = max(map(len, groups))
    rows = [group + [group[0]] * (k - len(group)) for group in groups]
    reward = torch.tensor(rows, dtype=torch.float64).T
    present = torch.tensor([[True] * len(group) + [False] * (k - len(group)) for group in groups]).T
    expected = reference.difference_loss(groups)
    assert float(difference_loss(reward, present)) == same(expected)
    for group in groups:
        bound = (len(group) - 1) / len(group)
        one = float(difference_loss(torch.tensor(group, dtype=torch.float64)[:, None]))
        assert 0.5 * bound - BOUND <= one <= bound + BOUND


def test_difference_loss_of_three_responses_by_hand() -> None:
    """Rewards 0, 1, 3: 2/9 (sigmoid 1 + sigmoid 3 + sigmoid 2) = 2/9 (.7311 + .9526 + .8808) = 0.5699."""
    reward = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    loss = difference_loss(reward)
    loss.backward()
    slopes = [reference.sigmoid(d) * (1 - reference.sigmoid(d)) for d in (1, 3, 2)]
    expected = [2 / 9 * g for g in (-slopes[0] - slopes[1], slopes[0] - slopes[2], slopes[1] + slopes[2])]
    assert loss.item() == pytest.approx(0.569873, abs=5e-7)
    assert reward.grad is not None
    assert reward.grad.flatten().tolist() == same(expected)


def test_difference_loss_without_ties_disagreement_and_the_far_apart() -> None:
    reward = torch.tensor([[0.0], [0.0], [4.0]], dtype=torch.float64, requires_grad=True)
    difference_loss(reward[:2]).backward()
    assert reward.grad is not None
    assert reward.grad.abs().sum() == 0
    reward.grad = None
    difference_loss(reward, cap=2.0).backward()
    assert reward.grad.abs().sum() == 0
    agreed = torch.zeros(3, 3, 1, dtype=torch.bool)
    agreed[0, 2] = agreed[2, 0] = True
    assert float(difference_loss(reward, agreed=agreed)) == same(2 / 9 * reference.sigmoid(4.0))


def test_difference_loss_of_members_is_the_mean_of_theirs() -> None:
    reward = drawn(4, 3, 2)
    present = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    alone = [float(difference_loss(reward[:, member], present)) for member in range(3)]
    assert float(difference_loss(reward, present)) == same(sum(alone) / 3)


def test_geometry_by_hand() -> None:
    """Opposite views are 2 apart; four points on two axes; singular values 1 and 1 are two directions."""
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    assert float(alignment(points, -points)) == same(4.0)
    assert float(alignment(points, 3 * points)) == same(0.0)
    pairs = [math.exp(-8)] * 4 + [math.exp(-4)] * 8
    assert float(uniformity(points)) == same(math.log(sum(pairs) / 12))
    assert float(effective_rank(points)) == same(2.0)
    assert float(effective_rank(points[:2])) == same(1.0)
    assert float(usage_entropy(torch.eye(3))) == same(1.0)
    assert float(usage_entropy(torch.tensor([[1.0, 0, 0], [1, 0, 0]]))) == same(0.0)
