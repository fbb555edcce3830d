"""DeepSpeed's engine as an optimizer of torch's: a trainer steps it, and saves a state of whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class ZeroOptimizer(Optimizer):
    """What a trainer sees of an engine: groups with their rates, a step, and a state of whole tensors.

    Args:
        engine: DeepSpeed's.
        inner: the optimizer that the engine was given; its groups have flattened parts of weights by now.
        groups: the weights that its groups had before, in their order.

    Attributes:
        norm: of the latest step's gradient over all ranks, before clipping; infinity where it was not finite, and the
            step was left out.
    """

    def __init__(self, engine: Any, inner: Optimizer, groups: list[list[nn.Parameter]]) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.param_groups = inner.param_groups
        self.state = inner.state
        self.norm = 0.0
        self._engine = engine
        self._groups = groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Go forward and back, clip and step, or leave the step out where the gradient's norm is not finite."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._engine.step()
        self.norm = float(self._engine.get_global_grad_norm())
        if self._engine.was_step_applied() != (self.norm < float("inf")):
            raise RuntimeError(f"DeepSpeed took a step whose gradient has the norm {self.norm}")
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the engine lets go of gradients as it steps."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of whole tensors as the optimizer would have on one process; all ranks call this alike.

        Returns:
            As torch's, on rank 0 on the host; others have options without tensors.
        """
        from deepspeed.utils import safe_get_full_optimizer_state  # pyright: ignore[reportMissingImports]

        state: dict[int, dict[str, Any]] = {}
        names, shared = _state_names(self.state)
        _link_states(self._engine.optimizer, self.state)
        for number, parameter in enumerate(parameter for group in self._groups for parameter in group):
            whole = {name: safe_get_full_optimizer_state(parameter, name) for name in names}
            if names and torch.distributed.get_rank() == 0:
                state[number] = {name: value.cpu().clone() for name, value in (shared | whole).items()}
        numbers = iter(range(sum(map(len, self._groups))))
        groups = [
            {**group, "params": [next(numbers) for _ in own]}
            for group, own in zip(self.param_groups, self._groups, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up such a state, each rank its part."""
        from deepspeed.utils import safe_set_full_optimizer_state  # pyright: ignore[reportMissingImports]

        for group, before in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in before.items() if name != "params"})
        state: Mapping[int, Mapping[str, Any]] = state_dict["state"]
        if not state:
            return
        zero = self._engine.optimizer
        first = next(iter(state.values()))
        for flat in _flat_parts(zero):
            own = {name: value.clone() for name, value in first.items() if value.ndim == 0}
            self.state[flat] = own | {name: torch.zeros_like(flat) for name, value in first.items() if value.ndim}
        _link_states(zero, self.state)
        for number, parameter in enumerate(parameter for group in self._groups for parameter in group):
            for name, value in state[number].items():
                if value.ndim:
                    safe_set_full_optimizer_state(parameter, value, name)


def _state_names(state: Mapping[Any, Mapping[str, Any]]) -> tuple[list[str], dict[str, Tensor]]:
    """Return the names of a state's tensors that are as large as their weights, and the others, which all share."""
    first = next(iter(state.values()), {})
    shared = {name: value.cpu().clone() for name, value in first.items() if value.ndim == 0}
    return [name for name in first if name not in shared], shared


def _link_states(zero: Any, state: Mapping[Any, Any]) -> None:
    """Tell weights where their part of the optimizer's state is: DeepSpeed does so once, after the first group's step,
    when others have none. Stage 3 looks it up by itself.
    """
    linkage = import_module("deepspeed.utils.mixed_precision_linkage")
    for group, flat in zip(getattr(zero, "bit16_groups", ()), _flat_parts(zero), strict=False):
        linkage.lazy_init_hp_params_optimizer_state(group, flat, state)


def _flat_parts(zero: Any) -> list[Tensor]:
    """Return the flattened parts of weights that this rank's optimizer steps."""
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        return zero.fp32_partitioned_groups_flat
    return zero.single_partition_of_fp32_groups
