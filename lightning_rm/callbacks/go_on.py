"""Tells loggers and early stops where a resumed run goes on. It knows Lightning's and ours; no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks.early_stopping import EarlyStopping, EarlyStoppingReason
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.trainer.states import TrainerFn

from lightning_rm.loggers import ResumableCSVLogger, TrackioLogger


class GoOn(L.Callback):
    """A callback that tells the loggers from which step a resumed run goes on, and where the earlier run has logged.

    A run that an early stop has ended is over: Lightning would train it on to another validation, which the run that
    was never resumed has not had. With a greater patience than before it does go on: an early stop has the patience of
    this run, not the checkpoint's.

    A checkpoint lies in the folder `checkpoints` of its run, beside the loggers' own.
    """

    def __init__(self) -> None:
        self._patience: list[tuple[EarlyStopping, int]] = []  # of this run, where it goes on

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Tell the loggers where the run goes on, if it trains from the checkpoint and does not merely evaluate it."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        # Before the checkpoint's is put in its place.
        self._patience = [(stop, stop.patience) for stop in trainer.early_stopping_callbacks]
        for logger in trainer.loggers:
            if isinstance(logger, TrackioLogger):
                logger.goes_on = True
            if isinstance(logger, ResumableCSVLogger):
                logger.goes_on_from = checkpoint["global_step"]
                file = Path(logger.log_dir).relative_to(logger.root_dir) / ExperimentWriter.NAME_METRICS_FILE
                logger.before = Path(str(trainer.ckpt_path)).parent.parent / file

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a run that was stopped early, unless its patience would have reached further."""
        patience, self._patience = self._patience, []
        for stop, validations in patience:
            stop.patience = validations
            if stop.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED and stop.wait_count < validations:
                stop.stopping_reason, stop.stopping_reason_message = EarlyStoppingReason.NOT_STOPPED, None
            trainer.should_stop |= stop.stopping_reason != EarlyStoppingReason.NOT_STOPPED
