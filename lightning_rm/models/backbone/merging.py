"""Adapters merged into the weights that they adapt, in a state dict: the model that trained them stays as it is.

It knows peft's layers and tensors; not files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lightning_rm.precision import wide

ADAPTER = "default"
"""What peft calls the one adapter that a model has."""


def adapted_layers(classifier: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield every layer with an adapter, by its name."""
    for name, module in classifier.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


def is_plain(layer: Any) -> bool:
    """Tell whether a layer is LoRA as it was made: `W + scale * B A` of a linear layer, and nothing else."""
    # A tuner's layer is a module of peft's own; DoRA and its kind stand among LoRA's `lora_variant`.
    return isinstance(layer, LoraLayer) and ADAPTER in layer.lora_A and ADAPTER not in layer.lora_variant


def merge_adapters(classifier: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with every adapter merged into the weight it adapts; the classifier is left as it is.

    Args:
        classifier: the model that the state is of, for the adapters' scales.
        state: its tensors by name, whole.

    Returns:
        The state dict of the same classifier without adapters. Merging is done in float32 and rounded to the weight's
        dtype.
    """
    merged = dict(state)
    for name, layer in adapted_layers(classifier):
        own = {key: merged.pop(key) for key in state if key.startswith(f"{name}.")}
        base = _sum(name, layer, own) if is_plain(layer) else _by_peft(name, layer, own)
        merged |= {f"{name}.{key}": value for key, value in base.items()}
    return merged


def _sum(name: str, layer: Any, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return LoRA's sum, made by hand: that also works for a layer that is sharded or in 4 bits."""
    down, up = (wide(own[f"{name}.lora_{part}.{ADAPTER}.weight"]) for part in "AB")
    delta: Tensor = layer.scaling[ADAPTER] * (up @ down)
    weight = own[f"{name}.base_layer.weight"]
    base = {"weight": (wide(weight) + (delta.T if layer.fan_in_fan_out else delta)).to(weight.dtype)}
    bias = own.get(f"{name}.base_layer.bias")
    return base if bias is None else base | {"bias": bias}


def _by_peft(name: str, layer: Any, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what peft makes of a copy of a layer."""
    twin: Any = copy.deepcopy(layer).cpu()
    twin.load_state_dict({key.removeprefix(f"{name}."): value.detach().cpu() for key, value in own.items()})
    dtypes = {key: value.dtype for key, value in twin.get_base_layer().state_dict().items()}
    widest = torch.promote_types(next(iter(dtypes.values())), torch.float32)
    twin.to(widest)
    twin.merge(adapter_names=[ADAPTER])
    base = cast("dict[str, Tensor]", twin.get_base_layer().state_dict())
    return {key: value.to(dtypes[key]) for key, value in base.items()}
