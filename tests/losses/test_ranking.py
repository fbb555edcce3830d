from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.losses import centering_loss, language_model_loss, ranking_loss
from tests import reference
from tests.float64 import BOUND, assert_same, same

FINITE = st.floats(-30, 30)
PROBABILITY = st.floats(0, 1)
PAIRS = st.lists(st.tuples(FINITE, FINITE, PROBABILITY, FINITE, st.floats(0, 10)), min_size=1, max_size=8)


def pair(*rewards: float) -> torch.Tensor:
    return torch.tensor(rewards, dtype=torch.float64)


def loss_of(d: float, **targets: float) -> float:
    """The loss of one pair whose rewards differ by d."""
    return float(ranking_loss(pair(d), pair(0.0), **targets))


def slope_of(d: float, **targets: float) -> float:
    """Its derivative by d."""
    chosen = pair(d).requires_grad_()
    ranking_loss(chosen, pair(0.0), **targets).backward()
    assert chosen.grad is not None
    return float(chosen.grad)


@settings(max_examples=200)
@given(pairs=PAIRS)
def test_ranking_loss_equals_the_reference(pairs: list[tuple[float, float, float, float, float]]) -> None:
    columns = [pair(*column) for column in zip(*pairs, strict=True)]
    expected = reference.ranking_loss(*(column.tolist() for column in columns))
    assert float(ranking_loss(*columns)) == same(expected)


@pytest.mark.parametrize("d", [-1000.0, -100.0, -20.0, -1.0, 0.0, 1.0, 20.0, 100.0, 1000.0])
def test_plain_loss_and_its_gradient_stay_right_at_any_margin(d: float) -> None:
    """-log sigmoid(d): 1000 at d = -1000, log 2 at 0; the gradient is -sigmoid(-d), -1 at -20 and not -2e-4."""
    assert loss_of(d) == same(-reference.log_sigmoid(d))
    assert slope_of(d) == same(-reference.sigmoid(-d))


@pytest.mark.parametrize("d", [-1000.0, 1000.0])
@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_any_label_is_finite_at_large_margins(d: float, label: float) -> None:
    assert loss_of(d, label=label) == same(1000 * (label if d < 0 else 1 - label))
    assert math.isfinite(slope_of(d, label=label))


def test_soft_label_of_a_half_is_smallest_at_equal_rewards() -> None:
    assert slope_of(0.0, label=0.5) == 0
    assert loss_of(0.0, label=0.5) == same(math.log(2))
    assert all(loss_of(d, label=0.5) > math.log(2) for d in (-2.0, -0.1, 0.1, 2.0))


@pytest.mark.parametrize("label", [0.1, 0.5, 0.8])
def test_soft_label_is_fitted_where_the_sigmoid_of_the_margin_equals_it(label: float) -> None:
    optimum = math.log(label / (1 - label))
    assert slope_of(optimum, label=label) == same(0)
    assert slope_of(optimum + 1.5, label=label, margin=1.5) == same(0)


@given(c=FINITE, r=FINITE)
def test_label_of_zero_is_the_pair_the_other_way_round(c: float, r: float) -> None:
    chosen, rejected = pair(c), pair(r)
    flipped, exchanged = ranking_loss(chosen, rejected, label=0.0), ranking_loss(rejected, chosen, label=1.0)
    assert_same(flipped, exchanged)


@given(d=FINITE, alpha=PROBABILITY)
def test_label_smoothing_mixes_the_pair_and_its_flip(d: float, alpha: float) -> None:
    """arXiv 2401.06080, eq 5: (1 - alpha) of the loss and alpha of the flipped one is the loss against 1 - alpha."""
    mixed = (1 - alpha) * loss_of(d, label=1.0) + alpha * loss_of(d, label=0.0)
    assert loss_of(d, label=1 - alpha) == same(mixed)


@given(c=FINITE, r=FINITE, shift=FINITE, margin=FINITE)
def test_only_the_difference_of_rewards_counts_and_a_margin_shifts_it(
    c: float, r: float, shift: float, margin: float
) -> None:
    chosen, rejected = pair(c), pair(r)
    loss = float(ranking_loss(chosen, rejected, margin=margin))
    assert float(ranking_loss(chosen + shift, rejected + shift, margin=margin)) == same(loss)
    assert float(ranking_loss(chosen - margin, rejected)) == same(loss)


@given(d=FINITE, step=st.floats(0.125, 10, width=32))
def test_plain_loss_falls_and_is_convex(d: float, step: float) -> None:
    left, middle, right = loss_of(d - step), loss_of(d), loss_of(d + step)
    assert left >= middle >= right
    assert left + right >= 2 * middle - BOUND


def test_weights_count_pairs_and_the_mean_is_over_pairs() -> None:
    """Losses a, b with weights 2, 0 average to a: the mean divides by two pairs, not by the sum of the weights."""
    chosen, rejected = pair(1.0, -3.0), pair(0.0, 0.0)
    assert float(ranking_loss(chosen, rejected, weight=torch.tensor([2.0, 0.0]))) == same(loss_of(1.0))
    assert float(ranking_loss(chosen, rejected, weight=2.0)) == same(loss_of(1.0) + loss_of(-3.0))


def test_loss_is_of_each_pair_and_never_of_the_batch_sum() -> None:
    """d = 2, -1: (.1269 + 1.3133) / 2 = .7201; the log sigmoid of the summed margin would be .3133."""
    assert float(ranking_loss(torch.tensor([2.0, -1.0]), torch.zeros(2))) == pytest.approx(0.7201, abs=1e-4)


@pytest.mark.parametrize("name", ["label", "margin", "weight"])
@pytest.mark.parametrize("shape", [(4, 1), (1,), (3,), (1, 4)])
def test_a_target_that_would_broadcast_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"{name} has shape"):
        ranking_loss(torch.zeros(4), torch.zeros(4), **{name: torch.ones(shape)})


def test_rewards_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must agree"):
        ranking_loss(torch.zeros(4, 1), torch.zeros(4))


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    label, margin, weight = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    members = [ranking_loss(chosen[m], rejected[m], label, margin, weight) for m in range(3)]
    assert_same(ranking_loss(chosen, rejected, label, margin, weight), torch.stack(members).mean())
    centred = [centering_loss(chosen[m], rejected[m]) for m in range(3)]
    assert_same(centering_loss(chosen, rejected), torch.stack(centred).mean())


def test_bfloat16_rewards_are_compared_in_float32() -> None:
    """In bfloat16, 8.0625 - 0.01 and the loss of it would be rounded to 3 digits."""
    chosen, rejected = torch.tensor([8.0625], dtype=torch.bfloat16), torch.tensor([0.01], dtype=torch.bfloat16)
    loss = ranking_loss(chosen, rejected)
    assert loss.dtype == torch.float32
    # Within float32: the loss of 8.05 is 3e-4, whose last digit is 3e-11.
    assert float(loss) == pytest.approx(-reference.log_sigmoid(float(chosen) - float(rejected)), rel=1e-5)


@given(pairs=st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8))
def test_centering_equals_the_reference_and_ignores_who_is_chosen(pairs: list[tuple[float, float]]) -> None:
    chosen, rejected = (pair(*column) for column in zip(*pairs, strict=True))
    expected = reference.centering_loss(chosen.tolist(), rejected.tolist())
    assert float(centering_loss(chosen, rejected)) == same(expected)
    assert float(centering_loss(rejected, chosen)) == float(centering_loss(chosen, rejected))


def test_centering_pulls_the_sum_of_a_pair_to_zero_and_leaves_its_margin() -> None:
    """Rewards 3 and 1: loss 16, and the gradient 2 (3 + 1) = 8 on both, so their difference does not move."""
    rewards = torch.tensor([[3.0], [1.0]], requires_grad=True)
    loss = centering_loss(rewards[0], rewards[1])
    loss.backward()
    assert loss.item() == 16
    assert rewards.grad is not None
    assert rewards.grad.tolist() == [[8.0], [8.0]]


def test_language_model_loss_equals_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 11, generator=generator, dtype=torch.float64).mul(20)
    targets = torch.randint(0, 11, (6,), generator=generator)
    expected = reference.cross_entropy(logits.tolist(), targets.tolist())
    assert float(language_model_loss(logits, targets)) == same(expected)
    assert language_model_loss(logits.bfloat16(), targets).dtype == torch.float32


def test_language_model_loss_without_targets_is_zero_with_a_gradient_of_zero() -> None:
    hidden = torch.ones(3, 2, requires_grad=True)
    loss = language_model_loss(hidden[:0] @ torch.ones(2, 5), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()
