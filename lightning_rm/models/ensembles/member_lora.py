"""Low-rank adapters for M members at once: one pass through a shared backbone, M models' hidden states.

Layers before the first adapted one run once for all members. From there on the rows of the batch stand there M times,
member by member, and every adapted linear layer adds member m's `alpha / rank * (x A_m) B_m` to member m's rows: two
batched matrix products (Hu et al., arXiv 2106.09685, for each member). It knows modules and weights; not batches,
losses or files.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_rm.models.attention.last_layer import carry
from lightning_rm.models.backbone.heads import Architecture
from lightning_rm.models.backbone.kernels import is_compiled
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.backbone.merging import adapted_layers


class MemberAdapter(nn.Module):
    """The adapters of M members on one linear layer, in float32 or wider. B is zero at first, so nothing changes.

    Args:
        linear: the layer, a `nn.Linear` or GPT-2's `Conv1D`. It is not changed.
        generators: one for each member, which draws A: uniform in +-1 / sqrt(inputs), as LoRA's.
        rank: columns of A and rows of B.
        scale: alpha / rank.
    """

    def __init__(self, linear: nn.Module, generators: list[torch.Generator], rank: int, scale: float) -> None:
        super().__init__()
        weight = cast(Tensor, linear.weight)
        self.transposed = not isinstance(linear, Conv1D)
        outputs, inputs = weight.shape if self.transposed else (weight.shape[1], weight.shape[0])
        draws = [torch.rand(inputs, rank, generator=generator) for generator in generators]
        down = (2 * torch.stack(draws) - 1) * inputs**-0.5
        self.down = nn.Parameter(down.to(weight.device, torch.promote_types(weight.dtype, torch.float32)))
        self.up = nn.Parameter(self.down.new_zeros(len(generators), rank, outputs))
        self.scale = scale

    def add(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the layer's output with what each member adds on its rows; a forward hook of the layer.

        Args:
            inputs: one tensor (M * R, ..., in), member by member.
            output: (M * R, ..., out).
        """
        rows = inputs[0].to(self.down.dtype).view(self.down.shape[0], -1, self.down.shape[1])
        delta = (rows @ self.down * self.scale) @ self.up  # scaled where it is smallest
        return output + delta.view(output.shape).to(output.dtype)

    def merged(self, weight: Tensor, member: int | None) -> Tensor:
        """Return the layer's weight for one member alone, or (None) with the mean of what all members add."""
        deltas = self.scale * (self.down @ self.up)
        delta = deltas.mean(0) if member is None else deltas[member]
        return (weight.to(delta.dtype) + (delta.T if self.transposed else delta)).to(weight.dtype)


class MemberLora(nn.Module):
    """The adapters of M members on every linear layer of a backbone's last layers.

    The backbone stays as it is: adapters act inside `on` alone. So the backbone is copied and exported like any other.

    Args:
        classifier: whose backbone is adapted.
        architecture: its entry in the table.
        num_layers: how many of its last layers.
        rank: of every adapter.
        alpha: the scale's numerator.
        seeds: one for each member, of its A.

    Raises:
        ValueError: if the backbone has fewer layers, adapters already, gradient checkpointing, compiled layers or its
            own attention.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        architecture: Architecture,
        num_layers: int,
        rank: int,
        alpha: float,
        seeds: list[int],
    ) -> None:
        super().__init__()
        if not architecture.packs:
            raise ValueError(f"{classifier.config.model_type} cannot run members in one pass; set lora_layers=0")
        if any(adapted_layers(classifier)):
            raise ValueError("members bring adapters of their own: leave peft= out, or set lora_layers=0")
        if any(getattr(module, "gradient_checkpointing", False) for module in classifier.modules()):
            # A layer that is computed again in the backward pass would be computed outside of `on`, without adapters.
            raise ValueError("gradient_checkpointing does not go with lora_layers; leave it out")
        if is_compiled(classifier):  # a compiled layer does not look for hooks that it gets later
            raise ValueError("compile does not go with lora_layers; leave it out")
        layers = transformer_layers(classifier)
        if num_layers > len(layers):
            raise ValueError(f"lora_layers={num_layers}: the backbone has {len(layers)} layers; give at most as many")
        self.num_layers, self.num_members = num_layers, len(seeds)
        adapted = {id(module) for layer in layers[-num_layers:] for module in layer.modules()}
        linear = {
            name: module
            for name, module in classifier.named_modules()
            if id(module) in adapted and isinstance(module, nn.Linear | Conv1D)
        }
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.names = tuple(linear)
        self.adapters = nn.ModuleList(
            MemberAdapter(module, generators, rank, alpha / rank) for module in linear.values()
        )

    def by_name(self) -> dict[str, MemberAdapter]:
        """Return adapters by the names of their layers within the classifier."""
        return dict(zip(self.names, cast("list[MemberAdapter]", list(self.adapters)), strict=True))

    def merged(self, classifier: PreTrainedModel, member: int | None) -> dict[str, Tensor]:
        """Return the adapted layers' weights by name, for one member alone or (None) with the members' mean."""
        return {
            f"{name}.weight": adapter.merged(classifier.get_parameter(f"{name}.weight"), member)
            for name, adapter in self.by_name().items()
        }

    @contextmanager
    def on(self, classifier: PreTrainedModel) -> Generator[None]:
        """Have a forward of R rows within it give the hidden states of M * R, member by member."""
        first, *others = transformer_layers(classifier)[-self.num_layers :]
        with ExitStack() as hooks:
            for layer in (first, *others):
                hook = partial(_repeat_rows, self.num_members, layer is first)
                hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            for name, adapter in self.by_name().items():
                hooks.callback(classifier.get_submodule(name).register_forward_hook(adapter.add, prepend=True).remove)
            yield


def _repeat_rows(
    num_members: int, first: bool, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a layer's inputs for M times the rows. Hidden states have them, except in the first adapted layer."""
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    rows = hidden.shape[0] if first else hidden.shape[0] // num_members
    if first:
        hidden = hidden.repeat(num_members, 1, 1)
    others = {name: _repeated(value, rows, num_members) for name, value in kwargs.items() if name != "hidden_states"}
    if args:
        return (hidden, *(_repeated(value, rows, num_members) for value in args[1:])), others
    return (), {"hidden_states": hidden, **others}


def _repeated(value: Any, rows: int, num_members: int) -> Any:
    """Return masks and positions for M times the rows; what has one row is left to broadcast."""
    if isinstance(value, tuple):
        return tuple(_repeated(part, rows, num_members) for part in cast("tuple[Any, ...]", value))
    if not isinstance(value, Tensor):
        return value
    if value.dtype == torch.long and value.ndim == 4:  # segments, which describe all rows put end to end
        return carry(value, value.repeat(1, 1, 1, num_members))
    if rows > 1 and value.shape[:1] == (rows,):
        return carry(value, value.repeat(num_members, *[1] * (value.ndim - 1)))
    return value
