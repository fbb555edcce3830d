"""Callbacks: Hugging Face folders of the best and the last weights, checkpoints to go on from, and the per-pair records
of every evaluation.

They know Lightning's hooks and write files; the model and the metrics do not know them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import PreferenceBatch, ResponseBatch
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.modules.base import PairwiseRM


class HuggingFaceCheckpoint(L.Callback):
    """Writes the weights as Hugging Face folders: `best` whenever the monitored metric improves, `last` at the end.

    Where nothing is monitored or validated, `best` is the last. NaN is the worst value, as Lightning's checkpoints have
    it: they too keep the first weights, whatever they are worth.
    `AutoModelForSequenceClassification.from_pretrained(folder)` reads either, `AutoModelForCausalLM` those of an SFT.

    Args:
        folder: where `best` and `last` go.
        tokenizer: saved beside the weights.
        monitor: the metric that says which weights are best; None for the last.
        mode: `max` or `min`.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        monitor: str | None = "val/accuracy",
        mode: str = "max",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}: say 'max' or 'min'")
        self.folder = Path(folder)
        self.tokenizer = tokenizer
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: float | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write `best` if the validation that just ended is the best so far."""
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise ValueError(f"monitor={self.monitor!r} is not logged by this run; the validation metrics are: {known}")
        value = float(trainer.callback_metrics[self.monitor])
        if math.isnan(value):
            value = -self.sign * math.inf
        before = self.best
        if before is None or self.sign * value > self.sign * before:
            self.best = value
            try:
                self._save(pl_module, "best")
            except BaseException:  # Ctrl-C: a resumed run validates again, and must find that this is not saved
                self.best = before
                raise

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write `last`, and `best` too if nothing was validated."""
        self._save(pl_module, "last")
        if self.best is None:
            self._save(pl_module, "best")

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, for resuming."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best value of the checkpoint, if its weights lie in this folder: a new one begins anew."""
        if (self.folder / "best").is_dir():
            self.best = state_dict["best"]

    def _save(self, pl_module: L.LightningModule, name: str) -> None:
        cast(PairwiseRM, pl_module).export(self.folder / name, self.tokenizer)


class ResumeCheckpoint(L.Callback):
    """Writes a checkpoint to go on from: on Ctrl-C, and says how; every so many optimizer steps too, if asked to.

    The run that goes on from it is the one that never stopped, and validates anew what was being validated; only Ctrl-C
    between the micro-batches of one step loses their gradients. Errors leave no checkpoint: they may be in it.

    Args:
        path: of the checkpoint; each takes the place of the one before.
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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What a run goes on from is saved already."""
        self._last_step = trainer.global_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; not where a step ends, for a validation or an epoch's end may follow and belong to it."""
        step, every = trainer.global_step, self.every_n_train_steps
        if every and step % every == 0 and step > self._last_step:
            self._last_step = step
            trainer.save_checkpoint(self.path)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save where training stands, if it has begun."""
        fitting = trainer.state.fn == TrainerFn.FITTING and (trainer.training or trainer.validating)
        if isinstance(exception, KeyboardInterrupt) and fitting and trainer.global_step:
            trainer.save_checkpoint(self.path)
            if trainer.is_global_zero:
                print(f"interrupted after {trainer.global_step} steps; go on with 'resume=\"{self.path}\"'")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Count as Lightning would where it saves itself: from elsewhere it goes on wrongly.

        It takes an interrupted validation for one that is over, or reads only the rest of it; after an interrupted
        batch it counts one step too many in the logs, and from the next checkpoint of that run it repeats a batch.
        """
        loops = checkpoint["loops"]["fit_loop"]
        epoch, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
        current, total = batches["current"], batches["total"]
        if epoch["processed"] == epoch["started"]:  # between epochs
            return
        trained = batches["is_last_batch"] and current["processed"] == current["ready"]
        if trainer.interrupted and (trainer.validating or trained):  # as in the first batch of the validation
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            loops["epoch_loop.val_loop.batch_progress"].update(total=begun, current=begun)
            for counts in (total, current):
                counts["completed"] = counts["processed"]
        elif trainer.training and not trained and current["processed"] == current["completed"]:
            for counts in (total, current):  # as at the end of the last whole batch
                done = counts["completed"]
                counts.update(ready=done, started=done, processed=done, completed=done - 1)
            batches["is_last_batch"] = False
            stepped = current["ready"] % trainer.accumulate_grad_batches == 0  # Lightning then counts the step itself
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step - stepped

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take back the batch that `on_save_checkpoint` let a resumed validation begin with."""
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


@dataclass(frozen=True)
class PairRecords:
    """What an evaluation said of each pair of one data set, in the data set's order.

    Args:
        data_set: the set's name.
        row: (N,) the pair's row in the data set.
        subset: (N,) subset names.
        chosen: (N,) rewards.
        rejected: (N,) rewards.
        label: (N,) probability that chosen is preferred.
        clean: (N,) 1 where chosen is truly better, 0 where not, NaN where unknown.
    """

    data_set: str
    row: np.ndarray
    subset: list[str]
    chosen: np.ndarray
    rejected: np.ndarray
    label: np.ndarray
    clean: np.ndarray

    def write(self, path: Path) -> None:
        """Write one line a pair as Parquet."""
        columns = {name: getattr(self, name) for name in ("row", "subset", "chosen", "rejected", "label", "clean")}
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)

    def worst(self, num_pairs: int) -> np.ndarray:
        """(n,) positions of the pairs ranked worst against their label, worst first."""
        margin = (self.chosen - self.rejected) * np.sign(self.label - 0.5)
        return np.argsort(margin, kind="stable")[:num_pairs]


class PairRecorder(L.Callback):
    """Keeps each pair's rewards of every validation and test, writes them as Parquet, shows W&B the worst.

    Args:
        folder: gets `<stage>_<set>.parquet`, the latest evaluation's.
        num_worst: pairs in the W&B table of the worst-ranked validation pairs.
    """

    def __init__(self, folder: str | Path, num_worst: int = 50) -> None:
        self.folder = Path(folder)
        self.num_worst = num_worst
        self._batches: dict[str, list[Tensor]] = {}
        self._subset_names: dict[str, tuple[str, ...]] = {}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an evaluation that was interrupted."""
        self._batches = {}

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's rewards."""
        self._keep(cast(Mapping[str, Tensor], outputs), batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the records; give W&B the worst pairs of the first set."""
        records = self._write(pl_module, "val")
        if records and trainer.is_global_zero and not trainer.sanity_checking:
            self._log_worst(trainer, records[0])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the records."""
        self._write(pl_module, "test")

    def _keep(self, rewards: Mapping[str, Tensor], batch: PreferenceBatch | ResponseBatch) -> None:
        if isinstance(batch, ResponseBatch):  # groups have metrics, no records
            return
        chosen, rejected = rewards["chosen"], rewards["rejected"]
        columns = (batch.row, batch.subset, chosen, rejected, batch.label, batch.clean, batch.valid)
        table = torch.stack([column.cpu().double() for column in columns])
        self._batches.setdefault(batch.data_set, []).append(table)
        self._subset_names[batch.data_set] = batch.subset_names

    def _write(self, pl_module: L.LightningModule, stage: str) -> list[PairRecords]:
        """Gather every rank's pairs of each set, leave fillers out, and write them on rank 0."""
        records: list[PairRecords] = []
        for name, batches in self._batches.items():
            table = _gather_columns(pl_module, torch.cat(batches, dim=1))
            table = table[:, table[-1] == 1]
            values = table[:, table[0].argsort()].numpy()
            names = self._subset_names[name]
            record = PairRecords(
                data_set=name,
                row=values[0].astype(np.int64),
                subset=[names[int(index)] for index in values[1]],
                chosen=values[2].astype(np.float32),
                rejected=values[3].astype(np.float32),
                label=values[4],
                clean=values[5],
            )
            if pl_module.global_rank == 0:
                record.write(self.folder / f"{stage}_{name}.parquet")
            records.append(record)
        self._batches = {}
        return records

    def _log_worst(self, trainer: L.Trainer, records: PairRecords) -> None:
        datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Lightning, not declared
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and isinstance(datamodule, PreferenceDataModule):
                data_set = datamodule.datasets[records.data_set]
                rows: list[list[Any]] = []
                for position in records.worst(self.num_worst):
                    text = data_set.text(int(records.row[position]))
                    rewards = [float(records.chosen[position]), float(records.rejected[position])]
                    rows.append([text.id, text.prompt, text.chosen, text.rejected, rewards[0] - rewards[1], *rewards])
                names = ["id", "prompt", "chosen", "rejected", "margin", "reward chosen", "reward rejected"]
                logger.log_table("val/worst_pairs", columns=names, data=rows)


def _gather_columns(pl_module: L.LightningModule, local: Tensor) -> Tensor:
    """(C, N of all ranks) from each rank's (C, n): ranks may hold different n; fillers of zeros are not valid."""
    if pl_module.trainer.world_size == 1:
        return local
    sizes = cast(Tensor, pl_module.all_gather(torch.tensor(local.shape[1], device=pl_module.device)))
    filled = torch.nn.functional.pad(local, (0, int(sizes.max()) - local.shape[1])).to(pl_module.device)
    return torch.cat(list(cast(Tensor, pl_module.all_gather(filled)).cpu()), dim=1)
