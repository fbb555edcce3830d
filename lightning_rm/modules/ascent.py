"""Two places of one model's weights: theta, which is trained, and theta', a step up from it, where a gradient is taken.

`Ascent` moves there and back by copies, so that theta is restored bit for bit, with one copy of the moved weights
beside the model. It knows parameters, whole or sharded; no loss and no trainer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.gather import world_size

StepScale = Literal["sgd", "norm", "relative"]
"""How long a step of rate eta along a gradient g is: `sgd` eta |g|; `norm` eta; `relative` eta |theta|."""


class Ascent:
    """Moves parameters from theta to theta' and back.

    Args:
        parameters: what is moved.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.away = False
        self._other: list[Tensor] = []

    @torch.no_grad()
    def start(self, gradients: Sequence[Tensor], rate: Tensor | float) -> None:
        """Go to `theta' = theta + rate * gradients`, and keep theta.

        Args:
            gradients: one a parameter.
            rate: a number.
        """
        self._other = [parameter.detach().clone() for parameter in self.parameters]
        self.away = True  # whatever interrupts the walk, there is a way back
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.add_(gradient * rate)
        self._moved(away=True)

    def go(self) -> None:
        """To theta', if there is one and the model is not there."""
        if self._other and not self.away:
            self._swap(away=True)

    def back(self) -> None:
        """To theta, bit for bit, if the model is at theta'."""
        if self.away:
            self._swap(away=False)

    def forget(self) -> None:
        """Back to theta, and no theta' any more."""
        self.back()
        self._other = []

    @torch.no_grad()
    def displacement(self) -> list[Tensor]:
        """`theta' - theta` of each parameter, as it came out in the parameters' precision; empty without a theta'."""
        if not self._other:
            return []
        sign = -1 if self.away else 1
        return [sign * (other - here) for other, here in zip(self._other, self.parameters, strict=True)]

    @torch.no_grad()
    def _swap(self, away: bool) -> None:
        for parameter, other in zip(self.parameters, self._other, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(other)
            other.copy_(held)
        self._moved(away)

    def _moved(self, away: bool) -> None:
        self.away = away
        torch.clear_autocast_cache()  # it would go on with the weights of before, rounded


def choose_parameters(model: RewardModel, part: str) -> list[tuple[str, nn.Parameter]]:
    """The trainable parameters of a part of a reward model, by their names.

    Args:
        model: a reward model.
        part: `all`; `head`; `adapters` (LoRA); `last:N`, the head and the last N layers.

    Raises:
        ValueError: for another part, or one without a trainable parameter.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    head = {id(parameter) for parameter in model.head_parameters()}
    layers = re.fullmatch(r"last:(\d+)", part)
    if part == "adapters":
        named = [(name, parameter) for name, parameter in named if "lora_" in name]
    elif part == "head":
        named = [(name, parameter) for name, parameter in named if id(parameter) in head]
    elif layers:
        modules = cast(nn.Module, model.backbone).modules()
        stack = [cast(nn.Module, module) for module in modules if isinstance(module, GradientCheckpointingLayer)]
        last = stack[len(stack) - int(layers[1]) :]
        chosen = head | {id(parameter) for layer in last for parameter in layer.parameters()}
        named = [(name, parameter) for name, parameter in named if id(parameter) in chosen]
    elif part != "all":
        raise ValueError(f"ascent_part={part!r}; say all, head, adapters or last:N, such as last:2")
    if not named:
        raise ValueError(f"ascent_part={part!r}: the model has no trainable parameter there")
    return named


@torch.no_grad()
def squared_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of squares of tensors, whole or sharded: a float32 scalar, the same on every rank."""
    return inner_product(*[list(tensors)] * 2)


@torch.no_grad()
def inner_product(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """The sum of products of two lists of tensors, whole or sharded alike: a float32 scalar, the same on every rank.

    Args:
        left: at least one tensor.
        right: tensors of the same shapes.
    """
    total = torch.stack([(_local(a).float() * _local(b).float()).sum() for a, b in zip(left, right, strict=True)]).sum()
    if isinstance(left[0], DTensor):
        dist.all_reduce(total)
    return total


@torch.no_grad()
def average_over_ranks(gradients: Sequence[Tensor]) -> None:
    """The mean over ranks in place; sharded gradients are means already."""
    if world_size() == 1 or isinstance(gradients[0], DTensor):
        return
    pending = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
    for work, gradient in zip(pending, gradients, strict=True):
        cast(dist.Work, work).wait()
        gradient.div_(world_size())


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
