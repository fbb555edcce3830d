"""The router loss, which spreads a mixture's tokens over its experts. Pure functions of routers' scores."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rm.precision import wide


def router_loss(logits: Tensor, top_k: int, mask: Tensor | None = None) -> Tensor:
    """Return the load-balancing loss of one layer: `E * sum_e f_e p_e`.

    f_e is the share of tokens that go to expert e, p_e the mean of its probabilities (Fedus et al., "Switch
    Transformers", arXiv 2101.03961, equations 4 to 6); with k experts a token the shares add up to k, as transformers
    has it. Experts that are used alike give k, the least.

    Args:
        logits: (T, E), a router's scores of all experts.
        top_k: experts that a token goes to.
        mask: (T,) bool, False for padding; None where there is none.

    Returns:
        A scalar in float32 or wider.
    """
    probability = wide(logits).softmax(-1)
    chosen = _chosen(probability, top_k)
    weight = torch.ones_like(probability[:, :1]) if mask is None else mask[:, None].to(probability)
    num_tokens = weight.sum()
    share, mean = ((part * weight).sum(0) / num_tokens for part in (chosen, probability))
    return logits.shape[-1] * (share * mean).sum()


def dead_experts(logits: Tensor, top_k: int, mask: Tensor | None = None) -> Tensor:
    """Return the share of experts that not one token goes to, a scalar; arguments as for `router_loss`."""
    chosen = _chosen(logits, top_k)
    if mask is not None:
        chosen = chosen * mask[:, None].to(chosen)
    return (chosen.sum(0) == 0).float().mean()


def _chosen(scores: Tensor, top_k: int) -> Tensor:
    """Return (T, E), 1 for the experts that a token goes to."""
    return torch.zeros_like(scores).scatter(-1, scores.topk(top_k, dim=-1).indices, 1.0)
