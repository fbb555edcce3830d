"""Parameters that are unfrozen while a run trains: whether they are stepped, and their gradients averaged.

It knows a module's parameters, an optimizer and a strategy; no batches and no losses.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn
from torch.optim import Optimizer

from lightning_rm.counts import and_others


def trained(module: nn.Module) -> set[int]:
    """Return the `id`s of the parameters that are trained as it stands."""
    return {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def check_unfrozen(module: nn.Module, at_first: AbstractSet[int], optimizer: Optimizer, strategy: Strategy) -> None:
    """Check that parameters which are trained by now, and were not when training began, really are.

    Args:
        module: that is trained.
        at_first: what `trained` gave when training began.
        optimizer: that steps.
        strategy: the trainer's.

    Raises:
        ValueError: if the optimizer has not got one, or DDP, which was told of those that were trained at first, would
            leave each device its own gradient of it.
    """
    new = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in at_first
    }
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    left_out = [name for name, parameter in new.items() if id(parameter) not in stepped]
    told = "frozen when training began, and trained from here on"
    if left_out:
        raise ValueError(
            f"{left_out[0]}{and_others(len(left_out) - 1)}: {told}, but the optimizer has not got it: freeze it when "
            "the first epoch starts and not before, or let Lightning's BaseFinetuning add it to the optimizer"
        )
    if new and isinstance(strategy, DDPStrategy) and strategy.world_size > 1:
        raise ValueError(
            f"{next(iter(new))}{and_others(len(new) - 1)}: {told}, but DDP would not average its gradient: "
            "freeze it when the first epoch starts and not before, with strategy=ddp_find_unused_parameters_true"
        )
