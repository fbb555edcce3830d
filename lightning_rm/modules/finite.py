"""Optimizer steps whose loss or gradient is not finite: they change no weight, are named, and end a run of them.

Nothing here waits for a device while training goes on. Each micro-batch and each step leaves a flag on the device; a
step that is not finite is left out there (`gradients`); and the flags are read where logging reads, or at once on a
CPU. It knows losses, gradients and rows; not what they are of.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_rm.counts import is_number
from lightning_rm.models.zero_optimizer import ZeroOptimizer
from lightning_rm.modules.gather import on_every_rank
from lightning_rm.modules.gradients import gradient_norm, is_sharded, leave_out_unless
from lightning_rm.modules.spikes import GradientSpikes

READ_EVERY = 50
"""Steps after which flags are read where nothing is logged."""

MAX_NAMES = 8
"""Pairs of a skipped step that are named; the others are counted."""


class DivergedError(ValueError):
    """Training cannot go on: steps in a row were not finite, or weights are not. No step after the last good one
    changed a weight, and weights that are not finite are not saved."""


Ids = Callable[[int], str]
"""From a training pair's row to what messages call it."""


class SkippedStep(NamedTuple):
    """A step that changed nothing.

    Args:
        number: optimizer steps that were done before it.
        of_loss: whether the loss of a micro-batch on this rank was not finite; else the gradient alone was not.
        rows: of the training pairs on this rank that it came from: of the micro-batches whose loss was not finite, or
            of the whole step.
    """

    number: int
    of_loss: bool
    rows: list[int]


class _Step(NamedTuple):
    number: int
    finite: Tensor
    norm: Tensor | None
    losses: list[Tensor]
    rows: list[Tensor]


class FiniteSteps:
    """Notices, leaves out and counts the optimizer steps that are not finite.

    Args:
        max_skipped: skipped steps in a row that end the run. A run that goes on counts on; one that has been ended by
            them, and goes on all the same, begins anew.
        spikes: gets the norms of the others.

    Attributes:
        num_skipped: skipped steps of the run, as far as they are read.
        norm: of the latest step's gradient over all ranks, a scalar; None where it is not known, of scaled gradients.

    Raises:
        ValueError: if `max_skipped` is below 1.
    """

    def __init__(self, max_skipped: int, spikes: GradientSpikes) -> None:
        if not (is_number(max_skipped) and max_skipped >= 1):
            raise ValueError(f"max_skipped={max_skipped}: give the number of steps in a row that end a run, 1 or more")
        self.max_skipped = max_skipped
        self.spikes = spikes
        self.num_skipped = 0
        self.norm: Tensor | None = None
        self.in_a_row = 0
        self._in_a_row_before = 0
        self._losses: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._steps: list[_Step] = []

    def anew(self) -> FiniteSteps:
        """Return one of the same options that has seen no step."""
        return FiniteSteps(int(self.max_skipped), GradientSpikes(self.spikes.factor))

    def start(self) -> None:
        """Forget what an interrupted run has left to read; count on from a checkpoint, if one was taken up."""
        self.in_a_row, self._in_a_row_before = self._in_a_row_before, 0
        self._losses, self._rows, self._steps = [], [], []

    def guard(self, loss: Tensor, rows: Tensor) -> Tensor:
        """Return a factor for a micro-batch's loss: 1, or NaN where the loss is not finite.

        A loss times NaN makes every gradient NaN, on all ranks once gradients are averaged. So a loss that is infinite
        at finite gradients, or on one rank alone, is noticed everywhere by the gradient's norm.

        Args:
            loss: a scalar.
            rows: (P,) of the micro-batch's pairs in their data set; -1 for fillers.
        """
        finite = loss.detach().isfinite()
        self._losses.append(finite)
        self._rows.append(rows)
        return torch.where(finite, 1.0, torch.nan)

    def end_step(self, number: int, optimizer: Optimizer, *others: Tensor, scaled: bool = False) -> Tensor | None:
        """Leave the step out if its gradient, or another number of it, is not finite.

        A `ZeroOptimizer` looks at gradients as it steps, and `took_step` hears of it.

        Args:
            number: optimizer steps that were done before.
            optimizer: with the gradients, whole over ranks.
            *others: scalars, equal on all ranks, that must be finite too.
            scaled: whether gradients are scaled for float16: then the scaler leaves steps out, as it does where nothing
                is wrong with the run, and only a loss that is not finite counts.

        Returns:
            The gradient's norm, a scalar, 0 where the step is left out; None where it is not known whole, of
            sharded or scaled gradients and of a `ZeroOptimizer`'s.
        """
        if isinstance(optimizer, ZeroOptimizer):
            return None
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        if scaled:
            self._end(number, on_every_rank(torch.stack(self._losses).all()))
            return None
        self.norm = norm = gradient_norm(parameters)
        finite = torch.stack([value.isfinite() for value in (norm, *others)]).all()
        self._end(number, finite)
        leave_out_unless(finite, optimizer, parameters)
        return None if is_sharded(parameters) else norm.where(finite, 0.0)

    def took_step(self, number: int, optimizer: Optimizer) -> None:
        """Note a step that a `ZeroOptimizer` took, or left out where its gradient's norm is not finite; of any other
        `end_step` has noted it.

        Args:
            number: optimizer steps that were done before.
            optimizer: that has stepped.
        """
        if isinstance(optimizer, ZeroOptimizer):
            self.norm = torch.tensor(optimizer.norm, device=self._losses[0].device)
            self._end(number, self.norm.isfinite())

    def due(self, number: int, log_every: int) -> bool:
        """Tell whether flags are to be read after so many steps: where that costs nothing, or metrics are logged."""
        if not self._steps:
            return False
        on_cpu = self._steps[-1].finite.device.type == "cpu"
        return on_cpu or number % READ_EVERY == 0 or bool(log_every and number % log_every == 0)

    def read(self) -> list[SkippedStep]:
        """Return the steps that were left out since the last call; waits for the device."""
        if not self._steps:
            return []
        steps, self._steps = self._steps, []
        flags = torch.stack([step.finite for step in steps]).tolist()
        # Known of all steps or of none: gradients are scaled in a whole run, or not at all.
        known = [step.norm for step in steps if step.norm is not None]
        norms: list[float] = torch.stack(known).tolist() if known else [torch.nan] * len(steps)
        skipped: list[SkippedStep] = []
        for step, finite, norm in zip(steps, flags, norms, strict=True):
            self.in_a_row = 0 if finite else self.in_a_row + 1
            if finite:
                if step.norm is not None:
                    self.spikes.see(step.number, norm, step.rows)
                continue
            self.num_skipped += 1
            whole: list[bool] = torch.stack(step.losses).tolist()
            rows = [rows for rows, good in zip(step.rows, whole, strict=True) if not good] or step.rows
            found = [row for part in rows for row in part.tolist() if row >= 0]
            skipped.append(SkippedStep(step.number, not all(whole), found))
        return skipped

    def logged(self) -> dict[str, float | Tensor]:
        """Return what is logged of the steps: those left out, and, where norms are known, the latest and the spikes."""
        skipped: dict[str, float | Tensor] = {"skipped_steps": float(self.num_skipped)}
        if self.norm is None:
            return skipped
        return {**skipped, "gradient_norm": self.norm, "gradient_spikes": float(self.spikes.num)}

    def warn_of_skipped(self, name: Ids) -> None:
        """Say which steps were left out since flags were read last, by what `name` calls a row."""
        for step in self.read():
            warnings.warn(in_words(step, name), stacklevel=2)

    def counts(self) -> dict[str, float]:
        """Return how many steps were left out, how many were spikes, and how many times its level the largest was."""
        counts = {"skipped_steps": float(self.num_skipped), "gradient_spikes": float(self.spikes.num)}
        largest = max((spike.times for spike in self.spikes.kept), default=None)
        return counts if largest is None else {**counts, "largest_gradient_spike": largest}

    def state(self, device: torch.device) -> dict[str, Any]:
        """Return, for a checkpoint, what was counted; all ranks call this alike."""
        return {
            "skipped_steps": self.num_skipped,
            "skipped_in_a_row": self.in_a_row,
            "gradient_spikes": self.spikes.state(device),
        }

    def load(self, checkpoint: Mapping[str, Any], rank: int) -> None:
        """Take up what `state` gave; a checkpoint of an older run has nothing of it, or not all."""
        self.num_skipped = checkpoint.get("skipped_steps", 0)
        in_a_row = checkpoint.get("skipped_in_a_row", 0)
        self._in_a_row_before = in_a_row if in_a_row < self.max_skipped else 0
        if "gradient_spikes" in checkpoint:
            self.spikes.load(checkpoint["gradient_spikes"], rank)

    def _end(self, number: int, finite: Tensor) -> None:
        self._steps.append(_Step(number, finite, self.norm, self._losses, self._rows))
        self._losses, self._rows = [], []


def in_words(step: SkippedStep, name: Ids) -> str:
    """Return a skipped step and its pairs, by what `name` calls a row."""
    cause = "loss" if step.of_loss else "gradient"
    names = list(dict.fromkeys(map(name, step.rows)))  # pairs of one list of responses have one name
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    told = ", ".join(names[:MAX_NAMES]) + more
    return f"optimizer step {step.number}: the {cause} of {told} is not finite, and nothing is changed"
