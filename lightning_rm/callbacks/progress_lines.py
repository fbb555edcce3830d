"""How far a run is, for log files, where a progress bar is redrawn endlessly or not at all: one line with the first
loss, then a line a minute.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L

SHOWN = ("loss", "perplexity", "accuracy", "margin")
"""The metrics of training that a line has, where they are logged."""


class ProgressLines(L.Callback):
    """A callback that prints where training or an evaluation stands, and how long it will take.

        step 12 of 375, epoch 1 of 3, loss 0.63, accuracy 0.64, margin 0.18, 21 steps (336 pairs) a second, 17 s left

    Loss, accuracy and margin, or of text perplexity, are those of the last row of metrics
    (`trainer.log_every_n_steps`), over its pairs.

    Args:
        seconds: between two lines; the first comes with the first loss.
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
        self._has_said = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure speed from here."""
        self._began = self._last = self.clock()
        self._first_step = trainer.global_step
        self._has_said = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print if it is time."""
        is_time, is_first = self._is_time(trainer), self._is_first(trainer)
        if not (is_time or is_first):
            return
        metrics = trainer.callback_metrics
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
        ends = steps != math.inf
        parts = [f"step {step:,}" + (f" of {int(steps):,}" if ends else "")]
        epochs = trainer.max_epochs or -1
        parts.append(f"epoch {trainer.current_epoch + 1}" + (f" of {epochs}" if epochs > 0 else ""))
        shown = {name: float(metrics[key]) for name in SHOWN if (key := f"train/{name}") in metrics}
        parts += [f"{name} {value:.3f}" for name, value in shown.items() if not (name != "loss" and math.isnan(value))]
        done = step - self._first_step
        if done:
            rate = done / (self.clock() - self._began)
            undeclared: Any = trainer  # `log_every_n_steps` is set, not declared
            pairs = rate * float(metrics.get("train/num_pairs", 0)) / max(undeclared.log_every_n_steps, 1)
            parts.append(f"{_rounded(rate)} steps{f' ({_rounded(pairs)} pairs)' if pairs else ''} a second")
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

    def _is_first(self, trainer: L.Trainer) -> bool:
        """Tell whether there is a loss for the first time; gathering metrics costs a step something."""
        if self._has_said or not trainer.is_global_zero:
            return False
        self._has_said = "train/loss" in trainer.callback_metrics
        return self._has_said

    def _is_time(self, trainer: L.Trainer) -> bool:
        now = self.clock()
        if not trainer.is_global_zero or now - self._last < self.seconds:
            return False
        self._last = now
        return True


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
