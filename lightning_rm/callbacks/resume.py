"""Checkpoints to go on from, written wherever a run may be stopped.

It knows Lightning's loops and how they count; no model, no data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from lightning_rm.callbacks.checkpoint_files import latest_checkpoint, read_checkpoint
from lightning_rm.callbacks.stop import Stopped
from lightning_rm.modules.finite import DivergedError


class ResumeCheckpoint(L.Callback):
    """A callback that writes a checkpoint to go on from: on Ctrl-C, where it says how, and every so many optimizer
    steps, if asked to.

    The run that goes on from it gives what a run that never stopped gives, and repeats an interrupted validation; only
    Ctrl-C between the micro-batches of one step loses their gradients. Errors leave no checkpoint, for its state may be
    what failed. `DivergedError` does, unless weights are not finite: the steps that were left out have not changed
    them. If several ranks did not stop together (`Stop`), none can save, and the last checkpoint is named.

    Args:
        path: of the checkpoint, in the folder `checkpoints` of a run; each takes the place of the one before.
        every_n_train_steps: optimizer steps from one to the next; None for Ctrl-C alone.

    Raises:
        ValueError: if `every_n_train_steps` is below 1.
    """

    def __init__(self, path: str | Path, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps={every_n_train_steps}: give 1 or more, or null for Ctrl-C alone")
        self.path = Path(path)
        self.every_n_train_steps = every_n_train_steps
        self._last_step = 0
        self._validated: dict[str, int] | None = None

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember how many batches of validations the epoch has had."""
        self._validated = dict(checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that the step a run goes on from is saved already."""
        self._last_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; not where a step ends, for a validation or an epoch's end may follow and belong to it.

        Where a run goes on in the first batch of an epoch, or after a validation within it, Lightning has counted a
        validation that it did not run.
        """
        loop = trainer.fit_loop.epoch_loop
        if loop.restarting and self._validated is not None:
            loop.val_loop.batch_progress.total.load_state_dict(self._validated)
        step, every = trainer.global_step, self.every_n_train_steps
        if every and step % every == 0 and step > self._last_step:
            self._last_step = step
            trainer.save_checkpoint(self.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save where training stands, if it has begun and every rank is here; say how to go on."""
        fitting = trainer.state.fn == TrainerFn.FITTING and (trainer.training or trainer.validating)
        if not isinstance(exception, KeyboardInterrupt | DivergedError) or not fitting or not trainer.global_step:
            return
        saved = False
        if trainer.world_size == 1 or isinstance(exception, Stopped | DivergedError):
            try:
                trainer.save_checkpoint(self.path)
                saved = True
            except DivergedError:  # the earlier checkpoint is the last good one
                pass
        if not trainer.is_global_zero:
            return
        if saved:
            print(f"stopped after {trainer.global_step} steps; go on with 'resume=\"{self.path}\"'")
        elif (last := latest_checkpoint(self.path.parent.parent)) is not None:
            step = int(read_checkpoint(last)["global_step"])
            print(
                f"stopped after {trainer.global_step} steps; the last good checkpoint is of step {step}: go on with "
                f"'resume=\"{last}\"'"
            )
        else:
            print(f"stopped after {trainer.global_step} steps; no checkpoint was written before")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set the counts to what they are where Lightning itself saves; it resumes wrongly from a save elsewhere.

        It takes an interrupted validation for one that is over, or reads only the rest of it; after an interrupted
        batch it counts one step too many in the logs, and from the next checkpoint of that run it repeats a batch. An
        epoch that `max_steps` or an early stop has cut short it takes for a whole one: what is left of it was never
        trained on.
        """
        loops = checkpoint["loops"]["fit_loop"]
        epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
        epoch, current, total = epochs["current"], batches["current"], batches["total"]
        cut_short = epoch["processed"] == epoch["started"] and current["ready"] > 0 and not batches["is_last_batch"]
        if cut_short:
            for counts in (epoch, epochs["total"]):
                counts["processed"] -= 1
                counts["completed"] = min(counts["completed"], counts["processed"])
        elif epoch["processed"] == epoch["started"]:  # between epochs
            return
        trained = batches["is_last_batch"] and current["processed"] == current["ready"]
        if trainer.interrupted and (trainer.validating or trained):  # as in the first batch of the validation
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            loops["epoch_loop.val_loop.batch_progress"].update(total=begun, current=begun)
            for counts in (total, current):
                counts["completed"] = counts["processed"]
        elif (cut_short or trainer.training) and not trained and current["processed"] == current["completed"]:
            for counts in (total, current):  # as at the end of the last whole batch
                done = counts["completed"]
                counts.update(ready=done, started=done, processed=done, completed=done - 1)
            batches["is_last_batch"] = False
            stepped = current["ready"] % trainer.accumulate_grad_batches == 0  # Lightning then counts the step itself
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step - stepped

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take back the batch with which `on_save_checkpoint` let a resumed validation begin."""
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
