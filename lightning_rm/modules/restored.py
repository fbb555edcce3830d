"""An optimizer that a checkpoint restores: whether it is the same kind, and the options that this run gives it.

It knows optimizers, schedules and their options; no model and no trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lightning_rm.modules.optimization import ParameterGroup


class RestoredOptimizer:
    """What this run says of its optimizer, from before a checkpoint is read until training goes on from it."""

    def __init__(self) -> None:
        self.goes_on = False
        self._options: list[ParameterGroup] = []
        self._groups_before: list[ParameterGroup] | None = None

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Remember that training goes on, and the parameter groups of the checkpoint."""
        self.goes_on = True
        states = checkpoint.get("optimizer_states")
        self._groups_before = states[0]["param_groups"] if states else None

    def check(self, optimizer: Optimizer) -> None:
        """Remember a new optimizer's options, and check that the checkpoint's state fits it; see `check_options`."""
        self._options = options_of(optimizer)
        if self._groups_before is not None:
            check_options(self._groups_before, optimizer.state_dict()["param_groups"])

    def take(self, optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
        """Give a restored optimizer this run's options, if training goes on; see `take_options`.

        One that nobody has remembered, of a method that makes its own, goes on with those of the checkpoint.
        """
        if self.goes_on and self._options:
            take_options(optimizer, scheduler, self._options)
        self.goes_on, self._groups_before = False, None


def options_of(optimizer: Optimizer) -> list[ParameterGroup]:
    """Return the options of each parameter group, without the parameters, as a new optimizer has them."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def check_options(before: list[ParameterGroup], now: list[ParameterGroup]) -> None:
    """Check that an optimizer's state in a checkpoint is that of an optimizer of this kind, over these parameters.

    Args:
        before: the checkpoint's parameter groups, each with the numbers of its `params`.
        now: this run's, the same.

    Raises:
        ValueError: if the groups differ in names or sizes, or have other options, as those of another optimizer have.
    """
    sizes = [[f"{group.get('name')} of {len(group['params'])} tensors" for group in groups] for groups in (before, now)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the checkpoint's optimizer has the parameter groups {', '.join(sizes[0])}, and this run's has "
            f"{', '.join(sizes[1])}: go on with what was trained, or begin anew"
        )
    names = [set().union(*groups) - {"params", "initial_lr"} for groups in (before, now)]
    if names[0] != names[1]:
        told = [", ".join(sorted(here - there)) or "none" for here, there in (names, names[::-1])]
        raise ValueError(
            f"the checkpoint was written with another optimizer: it has options that this one has not ({told[0]}), or "
            f"the other way round ({told[1]}). Go on with the same optimizer=, or begin anew"
        )


def take_options(optimizer: Optimizer, scheduler: LRScheduler | None, options: list[ParameterGroup]) -> None:
    """Give a restored optimizer and its schedule the options of this run in place of the checkpoint's.

    A checkpoint brings the learning rate and all else that the run before was given. The rate is that which this run's
    schedule has at the step that it goes on from. Where nothing was changed nothing changes, to the last bit.

    Args:
        optimizer: restored.
        scheduler: restored; None without one.
        options: those that `options_of` gave before anything was restored.
    """
    for group, fresh in zip(optimizer.param_groups, options, strict=True):
        rate, base = group["lr"], group.get("initial_lr", fresh["lr"])
        group.update(fresh)
        if scheduler is not None:
            group["initial_lr"] = fresh["lr"]
            group["lr"] = rate if base == fresh["lr"] else rate * fresh["lr"] / base
    if scheduler is None:
        return
    scheduler.base_lrs = [fresh["lr"] for fresh in options]
    if isinstance(scheduler, LambdaLR):  # a function of the step, whatever the rate was
        factors = [function(scheduler.last_epoch) for function in scheduler.lr_lambdas]
        for group, base, factor in zip(optimizer.param_groups, scheduler.base_lrs, factors, strict=True):
            group["lr"] = base * factor
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]  # pyright: ignore[reportPrivateUsage]
