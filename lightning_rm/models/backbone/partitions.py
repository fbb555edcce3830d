"""Weights that DeepSpeed's ZeRO has partitioned: whole again, one by one, where something is written or read.

It knows modules and the marks that DeepSpeed leaves on parameters; no engine and no trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn


def has_partition(tensor: Tensor) -> bool:
    """Tell whether a parameter is kept in parts over ranks."""
    return "ds_tensor" in vars(tensor)


def is_partitioned(module: nn.Module) -> bool:
    """Tell whether a module's weights are kept in parts over ranks (ZeRO's stage 3)."""
    return any(has_partition(parameter) for parameter in module.parameters())


def part_of(parameter: Any) -> Tensor:
    """Return this rank's part of a partitioned parameter, flattened; padding is at its end."""
    return parameter.ds_tensor


def shape_of(tensor: Any) -> torch.Size:
    """Return the shape of a tensor, as a whole where it is partitioned."""
    return tensor.ds_shape if has_partition(tensor) else tensor.shape


@torch.no_grad()
def whole_of(parameter: Tensor) -> Tensor:
    """Return a copy of a partitioned parameter as a whole; all ranks call this alike."""
    with _whole(parameter):
        return parameter.detach().clone()


@torch.no_grad()
def set_whole_of(parameter: Tensor, value: Tensor) -> None:
    """Write a whole tensor into a partitioned parameter, each rank its part; all ranks call this alike."""
    with _whole(parameter, changed_on=0):
        parameter.copy_(value)


def gathered(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's state, whole: one weight at a time on the devices, then all on rank 0's host.

    All ranks call this alike. What is not partitioned comes as `state_dict` has it.

    Returns:
        Tensors by name; where weights are partitioned, none on ranks other than 0.
    """
    if not is_partitioned(module):
        return module.state_dict()
    state: dict[str, Tensor] = {}
    first = torch.distributed.get_rank() == 0
    for name, tensor in module.state_dict(keep_vars=True).items():
        with _whole(tensor):
            if first:
                state[name] = tensor.detach().cpu().clone()
    return state


@torch.no_grad()
def set_gathered(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write a whole state into a module, each rank its part of partitioned weights; all ranks call this alike."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        with _whole(tensor, changed_on=0):
            tensor.copy_(state[name])


def _whole(tensor: Tensor, changed_on: int | None = None) -> Any:
    """Return a context in which a tensor is whole on every rank; what one rank changes holds for all."""
    zero = import_module("deepspeed").zero
    return zero.GatheredParameters([tensor], modifier_rank=changed_on, enabled=has_partition(tensor))
