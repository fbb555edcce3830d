"""The gradients of a step that is not to be taken, and the norm that tells.

Nothing here waits for a GPU: a step is left out by the optimizer's own kernel or with gradients of zero. It knows
parameters, gradients and an optimizer; not why a step is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_rm.models.backbone.partitions import has_partition, part_of
from lightning_rm.precision import wide


def leave_out_unless(finite: Tensor, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """Have the optimizer's next step change nothing unless `finite`.

    On a CPU gradients are dropped, and a fused optimizer is told on the device: neither changes a weight. Any other
    optimizer takes a step with gradients of zero, which momentum and weight decay move a little.

    Args:
        finite: a flag, on the device of the gradients.
        optimizer: about to step.
        parameters: its parameters that have a gradient.
    """
    if finite.device.type == "cpu":
        drop_gradients(parameters, finite)
    elif not is_sharded(parameters) and all(group.get("fused") for group in optimizer.param_groups):
        tell_optimizer(optimizer, finite)
    else:
        zero_gradients(parameters, finite)


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    """Tell whether one of the tensors is a rank's part of a whole one."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def drop_gradients(parameters: Iterable[nn.Parameter], finite: Tensor) -> None:
    """Have a step change nothing unless `finite`; asks for the value of that flag."""
    if not finite:
        for parameter in parameters:
            parameter.grad = None


def tell_optimizer(optimizer: Optimizer, finite: Tensor) -> None:
    """Have a fused optimizer change nothing unless `finite`: its kernel reads the flag, as a gradient scaler's."""
    optimizer.found_inf = (~finite).float()  # pyright: ignore[reportAttributeAccessIssue]  # read by fused steps


def zero_gradients(parameters: Iterable[nn.Parameter], finite: Tensor) -> None:
    """Have a step's gradients be zero unless `finite`."""
    for parameter in parameters:
        local(cast(Tensor, parameter.grad)).masked_fill_(~finite, 0.0)


@torch.no_grad()
def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients, whole or sharded: a scalar, the same on every rank."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return squared_norm(gradients).sqrt() if is_sharded(gradients) else torch.nn.utils.get_total_norm(gradients)


@torch.no_grad()
def squared_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of squares of tensors, whole or sharded: a float32 scalar, the same on every rank.

    Args:
        tensors: at least one.
    """
    total = torch.stack([wide(local(tensor)).square().sum() for tensor in tensors]).sum()
    if is_sharded(tensors):
        torch.distributed.all_reduce(total)
    return total


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor; a whole one as it is."""
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    return part_of(tensor) if has_partition(tensor) else tensor
