"""A line a minute on how far a run is, for log files, where a progress bar is redrawn endlessly or not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L


class ProgressLines(L.Callback):
    """A callback that prints where training or an evaluation stands, and how long it will take.

        step 120 of 375, epoch 1 of 3, loss 0.634, 2.1 steps a second, 2 min left

    Args:
        seconds: between two lines.
        clock: returns seconds.
        say: prints a line; None for `print`.
    """

    def __init__(
        self, seconds: float = 60, clock: Callable[[], float] = time.monotonic, say: Callable[[str], Any] | None = None
    ) -> None:
        self.seconds = seconds
        self.clock = clock
        self.say: Callable[[str], Any] = say or partial(print, flush=True)
        self._began = self._last = clock()
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure speed from here."""
        self._began = self._last = self.clock()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print if it is time."""
        if not self._is_time(trainer):
            return
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
        ends = steps != math.inf
        parts = [f"step {step:,}" + (f" of {int(steps):,}" if ends else "")]
        epochs = trainer.max_epochs or -1
        parts.append(f"epoch {trainer.current_epoch + 1}" + (f" of {epochs}" if epochs > 0 else ""))
        if "train/loss" in trainer.callback_metrics:
            parts.append(f"loss {float(trainer.callback_metrics['train/loss']):.3f}")
        done = step - self._first_step
        if done:
            rate = done / (self.clock() - self._began)
            parts.append(f"{rate:.2g} steps a second")
            parts += [f"{_in_words((int(steps) - step) / rate)} left"] if ends else []
        self.say(", ".join(parts))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print if it is time."""
        self._evaluated("validating", trainer, batch, batch_idx)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print if it is time."""
        self._evaluated("testing", trainer, batch, batch_idx)

    def _evaluated(self, doing: str, trainer: L.Trainer, batch: Any, batch_idx: int) -> None:
        if self._is_time(trainer):
            self.say(f"{doing} {batch.data_set}: batch {batch_idx + 1:,}")

    def _is_time(self, trainer: L.Trainer) -> bool:
        now = self.clock()
        if not trainer.is_global_zero or now - self._last < self.seconds:
            return False
        self._last = now
        return True


def _in_words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
