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

from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.gather import world_size
from lightning_rm.modules.gradients import is_sharded, local
from lightning_rm.precision import wide

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
        """Go to theta', if there is one and the model is not there."""
        if self._other and not self.away:
            self._swap(away=True)

    def back(self) -> None:
        """Go back to theta, bit for bit, if the model is at theta'."""
        if self.away:
            self._swap(away=False)

    def forget(self) -> None:
        """Go back to theta, and forget theta'."""
        self.back()
        self._other = []

    @torch.no_grad()
    def compared(self) -> tuple[Tensor, Tensor] | None:
        """Say how far theta' lies from theta, and the cosine between that step and the parameters' `.grad`.

        Float32 scalars, the same on every rank, of the step as it came out in the parameters' precision; the cosine is
        NaN for a step or gradient of 0. None without a theta'. One parameter's step is in memory at a time.
        """
        if not self._other:
            return None
        sign = -1 if self.away else 1
        pairs = zip(self.parameters, self._other, strict=True)
        return length_and_cosine(
            self.parameters,
            (sign * (wide(local(other)) - wide(local(here))) for here, other in pairs),
        )

    @torch.no_grad()
    def _swap(self, away: bool) -> None:
        for parameter, other in zip(self.parameters, self._other, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(other)
            other.copy_(held)
        self._moved(away)

    def _moved(self, away: bool) -> None:
        self.away = away
        torch.clear_autocast_cache()  # a caller's autocast may keep the weights of before the move, rounded


def choose_parameters(model: AnyRewardModel, part: str) -> list[tuple[str, nn.Parameter]]:
    """Return the trainable parameters of a part of a reward model, by their names.

    Args:
        model: a reward model.
        part: `all`; `head`; `adapters` (LoRA, members' too); `last:N`, the head and the last N layers with the adapters
            on them (of an ensemble, of every member).

    Raises:
        ValueError: for another part, or one without a trainable parameter.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    head = {id(parameter) for parameter in model.head_parameters()}
    layers = re.fullmatch(r"last:(\d+)", part)
    adapted = model.member_adapters()
    if part == "adapters":
        adapters = {id(parameter) for _, adapter in adapted for parameter in adapter.parameters()}
        named = [(name, parameter) for name, parameter in named if "lora_" in name or id(parameter) in adapters]
    elif part == "head":
        named = [(name, parameter) for name, parameter in named if id(parameter) in head]
    elif layers:
        last = [layer for plain in model.plain_models for layer in _last_layers(plain, int(layers[1]))]
        chosen = head | {id(parameter) for layer in last for parameter in layer.parameters()}
        within = {id(module) for layer in last for module in layer.modules()}
        for module, adapter in adapted:
            if id(module) in within:
                chosen |= {id(parameter) for parameter in adapter.parameters()}
        named = [(name, parameter) for name, parameter in named if id(parameter) in chosen]
    elif part != "all":
        raise ValueError(f"ascent_part={part!r}; say all, head, adapters or last:N, such as last:2")
    if not named:
        raise ValueError(f"ascent_part={part!r}: the model has no trainable parameter there")
    return named


def _last_layers(model: RewardModel, num_layers: int) -> list[nn.Module]:
    stack = transformer_layers(model.backbone)
    if num_layers > len(stack):
        raise ValueError(
            f"ascent_part='last:{num_layers}': the backbone has {len(stack)} layers; say last:{len(stack)} or all"
        )
    return stack[len(stack) - num_layers :]


@torch.no_grad()
def length_and_cosine(parameters: Sequence[nn.Parameter], steps: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Say how long a step is, and its cosine with the parameters' `.grad`: float32 scalars, the same on every rank.

    Args:
        parameters: whole or sharded.
        steps: this rank's part of each parameter's step, taken one at a time.
    """
    sums = wide(torch.zeros(3, dtype=parameters[0].dtype, device=parameters[0].device))
    for parameter, step in zip(parameters, steps, strict=True):
        gradient = wide(local(gradient_of(parameter)))
        sums += torch.stack([step.square().sum(), gradient.square().sum(), (step * gradient).sum()])
    if is_sharded(parameters):
        dist.all_reduce(sums)
    return sums[0].sqrt(), sums[2] / (sums[0] * sums[1]).sqrt()


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's `.grad`, or zeros where a backward pass did not reach it."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


@torch.no_grad()
def average_over_ranks(gradients: Sequence[Tensor]) -> None:
    """Average gradients over ranks in place; sharded ones are means already."""
    if world_size() == 1 or is_sharded(gradients):
        return
    pending = [dist.all_reduce(gradient, async_op=True) for gradient in gradients]
    for work, gradient in zip(pending, gradients, strict=True):
        cast(dist.Work, work).wait()
        gradient.div_(world_size())
