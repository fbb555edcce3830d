"""Metrics of training that other callbacks go by: whether they will be there when they are looked at, and whether one
of them has ended the run.

It knows Lightning's counts of batches and what has been logged; which callbacks go by a metric it is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L


class MonitoredInTraining(L.Callback):
    """A callback that ends a run at its first log if another callback goes by a metric of training that is not in it.

    Which metrics a method logs is only known once it has; Lightning would say so at the first validation, or at the end
    of the first epoch.

    Args:
        monitors: the key that sets it -> the metric, such as `train/loss`.

    Raises:
        ValueError: if a metric is not logged, or nothing is before it is looked at.
    """

    def __init__(self, monitors: Mapping[str, str]) -> None:
        self.monitors = dict(monitors)
        self._is_checked = not monitors

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that something is logged before the first look."""
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared
        check = trainer.val_check_batch
        batches = min(trainer.num_training_batches, math.inf if check is None else check)
        steps = batches * (trainer.check_val_every_n_epoch or 1) / trainer.accumulate_grad_batches
        first = math.inf if math.isinf(steps) else math.ceil(steps)
        for key, monitor in self.monitors.items():
            if every == 0 or every > first:
                raise ValueError(
                    f"{key}={monitor} is looked at after {first} steps, and metrics of training are logged "
                    f"{f'every {every}' if every else 'never'}: set trainer.log_every_n_steps={first} or less"
                )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Check the names, once there are some."""
        self._check_names(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the names before others look at what has just been logged."""
        self._check_names(trainer)

    def _check_names(self, trainer: L.Trainer) -> None:
        if self._is_checked:  # Lightning gathers its metrics each time that they are asked for
            return
        logged = sorted(name for name in trainer.callback_metrics if name.startswith("train/"))
        self._is_checked = bool(logged)
        for key, monitor in self.monitors.items() if logged else ():
            if monitor not in logged:
                raise ValueError(f"{key}={monitor} is not logged; what is logged in training: {', '.join(logged)}")


def stopped_early(trainer: L.Trainer) -> str | None:
    """Return in a line after which step an early stop ended a run, and why; None where none did."""
    for callback in trainer.early_stopping_callbacks:
        if callback.stopping_reason_message is not None:
            why = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
            return f"stopped early, after step {trainer.global_step}: {why}"
    return None
