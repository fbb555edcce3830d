"""What the routers of a mixture of experts did in a forward: their loss, and the experts that got no token.

Routers are heard by hooks, in training alone. It knows routers and tokens; not what a loss is added to.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lightning_rm.batch import Routing
from lightning_rm.losses.router import dead_experts, router_loss
from lightning_rm.models.backbone.routers import logits_index, routers_of
from lightning_rm.tokens import TokenBatch

BALANCED = ("router_aux_loss_coef", "aux_loss_coef")
"""Settings of the families that are trained with a router loss."""

CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
"""What configurations call the number of experts that a token goes to."""


def hear_routers(backbone: PreTrainedModel, weight: float) -> None:
    """Hook into a backbone's routers, where it has some.

    Args:
        backbone: its weights stay as they are.
        weight: of the router loss.

    Raises:
        ValueError: for a weight of a loss that this family does not have.
    """
    routers = routers_of(backbone)
    settings = backbone.config.to_dict()
    if weight < 0:
        raise ValueError(f"router_loss={weight}: a weight of 0 or more is wanted")
    if weight and not (routers and any(name in settings for name in BALANCED)):
        reason = "balances its experts by itself" if routers else "has no experts that transformers tells of"
        raise ValueError(f"router_loss={weight}: {backbone.config.model_type} {reason}; set router_loss=0")
    index = logits_index(backbone)
    for router in routers.values():
        router.register_forward_hook(_Hear(index))


@contextmanager
def hearing() -> Generator[list[Tensor]]:
    """Put what routers in training say within the block into a list: scores (tokens, E), from first layer to last."""
    _NOW.heard = []
    try:
        yield _NOW.heard
    finally:
        _NOW.heard = None  # a layer that is computed again in the backward pass is not heard


def routing_of(heard: Sequence[Tensor], config: PreTrainedConfig, tokens: TokenBatch, weight: float) -> Routing | None:
    """Return what the routers did with a batch; None where none was heard, or none has told how many a token goes to.

    Args:
        heard: their scores, (tokens, E) each.
        config: the backbone's.
        tokens: what it read.
        weight: of the loss; without one it is a number to look at, without a gradient.
    """
    if not heard:
        return None
    settings: dict[str, Any] = config.to_dict()
    top_k = next((int(settings[name]) for name in CHOSEN if isinstance(settings.get(name), int)), None)
    if top_k is None:
        return None
    whole = tokens.mask.flatten()
    # A last layer that is computed where it is read scores tokens alone, no padding.
    masked = [(scores, whole if len(scores) == len(whole) else None) for scores in heard]
    with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
        loss = torch.stack([router_loss(scores, top_k, mask) for scores, mask in masked]).mean()
    with torch.no_grad():
        dead = torch.stack([dead_experts(scores, top_k, mask) for scores, mask in masked]).mean()
    return Routing(loss, dead, weight)


class _Now(threading.local):
    """What is heard in this thread."""

    heard: list[Tensor] | None = None


_NOW = _Now()


class _Hear:
    """A hook that a copy of a model has too."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, router: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if router.training and _NOW.heard is not None:
            scores = cast(Tensor, output[self.index] if isinstance(output, tuple) else output)
            _NOW.heard.append(scores.flatten(0, -2))
