"""The checkpoints that a run keeps under one name each, of the best weights and of the last. They know Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """A callback that writes `best.ckpt` whenever the monitored metric improves; without one, at every end of an epoch.

    NaN is the worst value. As long as the metric was never a number the last weights stand for the best.

    A run that goes on takes up the earlier best value only if the checkpoint that has it, and the weights that were
    exported with it, are still there. So what is measured in the end is what was exported.

    Args:
        folder: where it goes.
        monitor: the metric; None for the last weights.
        mode: `max` or `min`.
        exported: a folder that the same weights are exported to.
    """

    def __init__(self, folder: str | Path, monitor: str | None, mode: str, exported: str | Path) -> None:
        super().__init__(dirpath=folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)
        self.exported = Path(exported)

    @property
    def never_known(self) -> bool:
        """Whether the metric has been NaN at every validation."""
        return self.best_model_score is not None and not bool(self.best_model_score.isfinite())

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Tell whether weights of this value are the best so far; Lightning asks."""
        is_better = super().check_monitor_top_k(trainer, current)
        return is_better or (self.never_known and current is not None and bool(current.isnan()))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the earlier best, wherever the folder lies now, or begin anew."""
        path = Path(str(self.dirpath)) / "best.ckpt"
        if not path.exists() or not self.exported.is_dir():
            return
        score = state_dict["best_model_score"]
        self.best_model_score = self.current_score = self.kth_value = score
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_k_models = {} if score is None else {str(path): score}


class LastCheckpoint(ModelCheckpoint):
    """A callback that writes `last.ckpt` at every end of an epoch and where training ends, whatever the metrics say.

    Args:
        folder: where it goes.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            save_on_train_epoch_end=True,
            every_n_epochs=1,
            enable_version_counter=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return no state: the last checkpoint is simply the one that was written last."""
        return {}

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it where a run goes on from another checkpoint of its very end, for then Lightning trains nothing."""
        path = Path(str(self.dirpath)) / "last.ckpt"
        before = trainer.ckpt_path
        if not self.best_model_path and before is not None and Path(before).resolve() != path.resolve():
            trainer.save_checkpoint(path)
