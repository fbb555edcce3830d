"""Hugging Face folders of the best and the last weights.

It knows a module that can export itself and a metric's name; the module does not know it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import lightning as L
from transformers import PreTrainedTokenizerBase

from lightning_rm.callbacks.averages import averaged, check_averages
from lightning_rm.modules.base import PairwiseRM


class HuggingFaceCheckpoint(L.Callback):
    """A callback that writes the weights as Hugging Face folders: `best` whenever the monitored metric improves, `last`
    at the end.

    Where Lightning keeps an average of the weights (`EMAWeightAveraging`), which is what it validates, both are of it.
    Where nothing is monitored or validated, `best` is the last. NaN is the worst value; where a metric is never a
    number, as the accuracy of responses without another beside them, `best` is the last too.
    `AutoModelForSequenceClassification.from_pretrained(folder)` reads either, `AutoModelForCausalLM` those of an SFT.
    Weights that are not finite are never written: they end the run.

    Args:
        folder: where `best` and `last` go.
        tokenizer: saved beside the weights.
        monitor: the metric that says which weights are best; None for the last.
        mode: `max` or `min`.
        beside: the checkpoint of the best weights, which a resumed run measures; without it the best begins anew.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        monitor: str | None = "val/accuracy",
        mode: str = "max",
        beside: str | Path | None = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}: say 'max' or 'min'")
        self.folder = Path(folder)
        self.tokenizer = tokenizer
        self.monitor = monitor
        self.beside = None if beside is None else Path(beside)
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: float | None = None
        self._is_over = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that an average of the weights, where one is kept, can be exported as it is measured."""
        check_averages(trainer.callbacks, trainer.strategy)  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write `best` if the validation that just ended is the best so far."""
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if not name.startswith("train")))
            raise ValueError(f"monitor={self.monitor!r} is not logged by this run; what validations log: {known}")
        value = float(trainer.callback_metrics[self.monitor])
        if math.isnan(value):
            value = -self.sign * math.inf
        before = self.best
        never_known = math.isinf(value) and value == before
        if before is None or self.sign * value > self.sign * before or never_known:
            self.best = value
            try:
                self._save(pl_module, "best")
            except BaseException:  # Ctrl-C: a resumed run validates again, and must find that this is not saved
                self.best = before
                raise

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write `last`, and `best` too if nothing was validated."""
        self._is_over = True
        self._save(pl_module, "last")
        if self.best is None:
            self._save(pl_module, "best")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them where a run goes on from a checkpoint of its very end, as after a full disk: Lightning trains
        nothing then, nor ends a training.
        """
        if not self._is_over and trainer.ckpt_path is not None:
            self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, for resuming."""
        return {"best": self.best, "monitor": self.monitor, "sign": self.sign}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best value of the checkpoint, if its weights lie in this folder: a new one begins anew.

        So does a run that goes on by another metric, as its best checkpoint does.
        """
        known = (state_dict.get("monitor", self.monitor), state_dict.get("sign", self.sign))
        if known != (self.monitor, self.sign):
            return
        if (self.folder / "best").is_dir() and (self.beside is None or self.beside.exists()):
            self.best = state_dict["best"]

    def _save(self, pl_module: L.LightningModule, name: str) -> None:
        module = cast(PairwiseRM, pl_module)
        with averaged(module):
            module.check_finite()
            module.export(self.folder / name, self.tokenizer)
