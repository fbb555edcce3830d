"""A reward model a step up its difference loss, as a function of the weights before it, to be differentiated whole."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_rm.batch import RewardOutput
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.ascent import choose_parameters
from lightning_rm.modules.views import Forward
from lightning_rm.tokens import TokenBatch


class Above(NamedTuple):
    """A model at theta'.

    Args:
        model: tokens to rewards and features at theta'; a gradient goes through to theta.
        parameters: what is moved, at theta.
        steps: what each is moved by, without a graph.
    """

    model: Forward
    parameters: list[nn.Parameter]
    steps: list[Tensor]


def model_above(model: AnyRewardModel, part: str, climbed: Tensor, rate: float) -> Above:
    """Return the model at `theta' = theta + rate * dJ/dtheta`, with the graph of that step.

    Its gradient is that of `L(theta'(theta))` by theta, eq 17's exact form (arXiv 2401.06080), where the first order
    takes theta' for a constant. Attention must run on kernels whose gradient has a gradient.

    Args:
        model: at theta.
        part: which weights are moved, as in `choose_parameters`.
        climbed: J, a scalar of the model at theta.
        rate: eta.
    """
    named = dict(choose_parameters(model, part))
    with torch.autocast(climbed.device.type, enabled=False):  # the float32 head's backward stays float32
        gradients = torch.autograd.grad(climbed, list(named.values()), create_graph=True, materialize_grads=True)
    steps = [rate * gradient for gradient in gradients]
    moved = {name: named[name] + step for name, step in zip(named, steps, strict=True)}

    def forward(tokens: TokenBatch) -> RewardOutput:
        return functional_call(model, moved, (tokens,))

    return Above(forward, list(named.values()), [step.detach() for step in steps])
