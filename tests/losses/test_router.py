"""The router loss is transformers' own for one layer, and the paper's by hand."""

from __future__ import annotations

import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lightning_rm.losses.router import dead_experts, router_loss
from tests.float64 import assert_same

LOGITS = torch.randn(11, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MASK = torch.tensor([True] * 7 + [False] * 4)


def test_it_is_transformers_loss_of_one_layer() -> None:
    """Which has the shares of tokens in float32; the equation by hand, below, is held in float64."""
    for k in (1, 2):
        assert torch.allclose(router_loss(LOGITS, k), load_balancing_loss_func((LOGITS,), 4, k).double(), atol=1e-6)
        expected = load_balancing_loss_func((LOGITS,), 4, k, MASK[None]).double()
        assert torch.allclose(router_loss(LOGITS, k, MASK), expected, atol=1e-6)


def test_it_is_equation_four() -> None:
    """Shares and mean probabilities, expert by expert, of the tokens that are not padding."""
    tokens = [row.softmax(-1) for row, seen in zip(LOGITS, MASK, strict=True) if seen]
    total = torch.zeros((), dtype=torch.float64)
    for expert in range(4):
        share = sum(expert in token.topk(2).indices.tolist() for token in tokens) / len(tokens)
        total += share * torch.stack([token[expert] for token in tokens]).mean()
    assert_same(router_loss(LOGITS, 2, MASK), 4 * total)


def test_even_use_is_the_least() -> None:
    even = torch.eye(4, dtype=torch.float64) * 1e-9
    assert_same(router_loss(even, 1).round(decimals=6), torch.tensor(1.0, dtype=torch.float64))
    assert router_loss(torch.tensor([[9.0, 0, 0, 0]] * 4), 1) > 3.9


def test_experts_that_no_token_goes_to() -> None:
    """Two tokens to experts 0 and 1 of four: half are dead; a padded token does not count."""
    logits = torch.tensor([[5.0, 0, 0, 0], [0, 5.0, 0, 0], [0, 0, 5.0, 0]])
    assert dead_experts(logits, 1) == 0.25
    assert dead_experts(logits, 1, torch.tensor([True, True, False])) == 0.5
