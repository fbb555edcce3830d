"""Parameter groups, learning-rate schedules and the optimizer. They know parameters and names, not what is learned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from transformers.optimization import get_scheduler

from lightning_rm.models.protocol import AnyRewardModel

ParameterGroup = dict[str, Any]


class ParameterGroups(list[ParameterGroup]):
    """Groups for an optimizer, each with a `name`.

    Args:
        groups: without empty ones.
        tables: those of their parameters that are looked up in, not multiplied by. An optimizer that treats matrices in
            a way of its own asks for them; to any other this is a list.
    """

    def __init__(self, groups: Iterable[ParameterGroup], tables: Iterable[Tensor] = ()) -> None:
        super().__init__(groups)
        self.tables = list(tables)


OptimizerFactory = Callable[[ParameterGroups], Optimizer]
SchedulerFactory = Callable[[Optimizer, int | None], LRScheduler | LRSchedulerConfigType] | Callable[..., LRScheduler]
"""From (optimizer, number of steps) to a schedule that is stepped once an optimizer step, or to Lightning's dict, which
says when it is stepped and what it monitors; or a schedule of torch's with its options, `partial(StepLR, step_size=9)`.
"""

ENDLESS = ("inverse_sqrt", "constant_with_warmup", "constant")
"""Schedules that need no planned end."""

UNPLANNED_STEPS = 10_000
"""What a warm-up is a share of where a run has no planned end: the time scale of transformers' `inverse_sqrt`."""


def parameter_groups(
    backbone: Iterable[nn.Parameter],
    head: Iterable[nn.Parameter],
    head_lr: float | None = None,
    method: Iterable[nn.Parameter] = (),
    tables: Iterable[Tensor] = (),
) -> ParameterGroups:
    """Put trainable parameters into groups: no weight decay on norms and biases, a learning rate of its own for the
    head.

    Vectors (norm gains, biases) are not decayed, matrices are, with whatever decay the optimizer is given.

    Args:
        backbone: the backbone's parameters; frozen ones are left out.
        head: the head's parameters.
        head_lr: the head's learning rate; None takes the optimizer's.
        method: what a method trains beside the reward model, such as prototypes: at the head's rate, without decay.
        tables: which of them are looked up in, not multiplied by: the embeddings of tokens, of positions.
    """
    rate: ParameterGroup = {} if head_lr is None else {"lr": head_lr}
    groups: list[ParameterGroup] = []
    for name, parameters, extra in (("backbone", backbone, {}), ("head", head, rate)):
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
        vectors = [parameter for parameter in trainable if parameter.ndim < 2]
        groups.append({"name": name, "params": matrices, **extra})
        groups.append({"name": f"{name}_no_decay", "params": vectors, "weight_decay": 0.0, **extra})
    own = [parameter for parameter in method if parameter.requires_grad]
    groups.append({"name": "method", "params": own, "weight_decay": 0.0, **rate})
    return ParameterGroups((group for group in groups if group["params"]), tables)


def groups_of(method: nn.Module, model: AnyRewardModel, head_lr: float | None = None) -> ParameterGroups:
    """Return the groups of a reward model, and of what the method that holds it trains beside it.

    Tables are the embeddings of whatever is looked up, and a kept LM head.
    """
    of_model = {id(parameter) for parameter in model.parameters()}
    own = [parameter for parameter in method.parameters() if id(parameter) not in of_model]
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    tables = [*embeddings, *model.lm_head_parameters()]
    return parameter_groups(model.backbone_parameters(), model.head_parameters(), head_lr, own, tables)


def warmup_schedule(
    optimizer: Optimizer, num_steps: int | None, name: str = "linear", warmup: float = 0.1
) -> LRScheduler:
    """Return a warm-up from zero, then the schedule of that name in transformers.

    Args:
        optimizer: whose learning rates are scheduled.
        num_steps: optimizer steps of the whole run; None for a run without a planned end, which `max_time` may end.
        name: `linear`, `cosine`, `inverse_sqrt`, `constant_with_warmup`: a name of `transformers.SchedulerType`.
        warmup: below 1 a share of `num_steps`, of `UNPLANNED_STEPS` without a planned end; from 1 on a number of steps.

    Returns:
        A scheduler that is stepped once an optimizer step.

    Raises:
        ValueError: if `warmup` is negative or longer than the run, or the schedule needs a planned end and has none.
    """
    if num_steps is None and name not in ENDLESS:
        raise ValueError(
            f"scheduler={name} falls until a planned end, and this run has none: set trainer.max_epochs or "
            f"trainer.max_steps (max_time may still end it sooner), or scheduler={ENDLESS[0]}"
        )
    whole = UNPLANNED_STEPS if num_steps is None else num_steps
    num_warmup_steps = round(warmup * whole) if warmup < 1 else round(warmup)
    if num_warmup_steps < 0 or (num_steps is not None and num_warmup_steps > num_steps):
        raise ValueError(
            f"warmup={warmup} is {num_warmup_steps} of the run's {num_steps} steps; give a share below 1 or fewer steps"
        )
    schedule = get_scheduler(
        name, optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=None if name in ENDLESS else num_steps
    )
    return cast(LRScheduler, schedule)


def make_optimizer(factory: OptimizerFactory, groups: ParameterGroups, clips_scaled: bool) -> Optimizer:
    """Return the optimizer over parameter groups.

    Args:
        factory: makes it, as a user gave it.
        groups: of `groups_of`.
        clips_scaled: whether gradients are clipped that are scaled for float16.

    Raises:
        ValueError: if an option is of another type or none of this optimizer's, or a fused optimizer would be handed
            gradients that were clipped while they were scaled.
    """
    try:
        optimizer = factory(groups)
    except TypeError as error:
        raise ValueError(f"the optimizer cannot be made of its options: {error}") from error
    if not isinstance(optimizer, Optimizer):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's function
        raise ValueError(
            f"optimizer= has made a {type(optimizer).__name__} of the parameter groups; it has to return an optimizer "
            "of torch's kind"
        )
    if clips_scaled and any(group.get("fused") for group in optimizer.param_groups):
        raise ValueError(
            "a fused optimizer scales its gradients back by itself, after they should have been clipped: with "
            "trainer.precision=16-mixed set optimizer.fused=false, or trainer.gradient_clip_val=null"
        )
    return optimizer


def make_schedule(factory: SchedulerFactory, optimizer: Optimizer, num_steps: int | None) -> LRSchedulerConfigType:
    """Return a schedule over the optimizer, and when Lightning is to step it.

    A schedule of torch's knows no run: it is made of its own options, and of `num_steps` where it needs a `T_max` that
    nobody set.

    Args:
        factory: makes it, as a user gave it.
        optimizer: whose learning rates are scheduled.
        num_steps: optimizer steps of the whole run; None for a run without a planned end.

    Raises:
        ValueError: if it cannot be made of its options, what is made is no schedule, or one that looks at a metric was
            not told at which.
    """
    make = cast("Callable[..., object]", factory)
    made_by, options = (factory.func, factory.keywords) if isinstance(factory, partial) else (factory, {})
    try:
        if getattr(made_by, "__module__", "") == LRScheduler.__module__:
            needs_end = num_steps and "T_max" in inspect.signature(made_by).parameters and "T_max" not in options
            found = make(optimizer, **({"T_max": num_steps} if needs_end else {}))
        else:
            found = make(optimizer, num_steps)
    except TypeError as error:
        raise ValueError(f"the schedule cannot be made of its options: {error}") from error
    if isinstance(found, Mapping):
        return cast(LRSchedulerConfigType, found)
    if isinstance(found, ReduceLROnPlateau):
        raise ValueError(
            "ReduceLROnPlateau looks at a metric: have scheduler= return a dict, {'scheduler': "
            "ReduceLROnPlateau(optimizer, mode='max'), 'monitor': 'val/accuracy'}"
        )
    if not isinstance(found, LRScheduler):
        raise ValueError(
            f"scheduler= has made a {type(found).__name__} of the optimizer; it has to return a schedule of torch's "
            "kind, or Lightning's dict of one"
        )
    return {"scheduler": found, "interval": "step"}
