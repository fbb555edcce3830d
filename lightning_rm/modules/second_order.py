"""A reward model a step up its difference loss, as a function of the weights before it, to be differentiated whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from lightning_rm.batch import RewardOutput, TokenBatch
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.ascent import choose_parameters
from lightning_rm.modules.views import Forward


class Above(NamedTuple):
    """A model at theta'.

    Args:
        model: tokens to rewards and features at theta'; a gradient goes through to theta.
        climbed: the difference loss at theta.
        norm: of its gradient.
    """

    model: Forward
    climbed: Tensor
    norm: Tensor


def model_above(
    model: RewardModel, part: str, climb: Callable[[], Tensor], rate: Callable[[Tensor, list[Tensor]], Tensor | float]
) -> Above:
    """The model at `theta' = theta + rate * dJ/dtheta`, with the graph of that step.

    Its gradient is that of `L(theta'(theta))` by theta, eq 17's exact form (arXiv 2401.06080), where the first order
    takes theta' for a constant. Attention must run on kernels whose gradient has a gradient.

    Args:
        model: at theta.
        part: which weights are moved, as in `choose_parameters`.
        climb: gives J, a scalar of the model.
        rate: from the gradient's norm and the moved weights to what the gradient is multiplied by.
    """
    named = dict(choose_parameters(model, part))
    parameters: list[Tensor] = list(named.values())
    climbed = climb()
    gradients = torch.autograd.grad(climbed, parameters, create_graph=True, materialize_grads=True)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    times = rate(norm, parameters)
    moved = {name: named[name] + times * gradient for name, gradient in zip(named, gradients, strict=True)}

    def forward(tokens: TokenBatch) -> RewardOutput:
        return functional_call(model, moved, (tokens,))

    return Above(forward, climbed.detach(), norm.detach())
