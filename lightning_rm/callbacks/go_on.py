"""Tells loggers that keep earlier logs where a resumed run goes on. It knows loggers; no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.trainer.states import TrainerFn

from lightning_rm.loggers import ResumableCSVLogger, TrackioLogger


class GoOn(L.Callback):
    """A callback that tells the loggers from which step a resumed run goes on, and where the earlier run has logged.

    A checkpoint lies in the folder `checkpoints` of its run, beside the loggers' own.
    """

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Tell the loggers where the run goes on, if it trains from the checkpoint and does not merely evaluate it."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TrackioLogger):
                logger.goes_on = True
            if isinstance(logger, ResumableCSVLogger):
                logger.goes_on_from = checkpoint["global_step"]
                file = Path(logger.log_dir).relative_to(logger.root_dir) / ExperimentWriter.NAME_METRICS_FILE
                logger.before = Path(str(trainer.ckpt_path)).parent.parent / file
