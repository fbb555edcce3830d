"""The callbacks of a training run: those that every run has, and those that a configuration asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, LambdaCallback, WeightAveraging
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from lightning_rm.callbacks import (
    GoOn,
    HuggingFaceCheckpoint,
    LastCheckpoint,
    MonitoredInTraining,
    PairRecorder,
    ResumeCheckpoint,
    SpikeRecorder,
)
from lightning_rm.commands._checks import is_early_stop, train_monitors
from lightning_rm.commands._config import plain_console
from lightning_rm.commands._folder import SPIKES
from lightning_rm.commands._found import STOPPED
from lightning_rm.commands._settings import check_shares
from lightning_rm.commands._tables import report_table, set_reports
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.models.backbone.adapters import count_parameters
from lightning_rm.modules.base import PairwiseRM


def own_callbacks(
    cfg: DictConfig, run: Path, tokenizer: PreTrainedTokenizerBase, monitor: str | None
) -> list[L.Callback]:
    """Return what every run has: it keeps weights and pairs, goes on where it was stopped, and says what it trains.

    Args:
        cfg: of the job.
        run: its folder.
        tokenizer: exported with the weights.
        monitor: the metric that weights are chosen by; None for the last.
    """
    checkpoints = run / "checkpoints"
    return [
        LastCheckpoint(checkpoints),
        HuggingFaceCheckpoint(run / "model", tokenizer, monitor, cfg.mode, checkpoints / "best.ckpt"),
        PairRecorder(run / "pairs"),
        ResumeCheckpoint(run / STOPPED, cfg.checkpoint.every_n_train_steps),  # before what may fail
        SpikeRecorder(run / SPIKES),
        *shown(cfg),
        GoOn(),
        LambdaCallback(on_fit_start=_check_shares, on_train_start=_log_a_short_run),
        MonitoredInTraining(train_monitors(cfg)),
    ]


def shown(cfg: DictConfig) -> list[L.Callback]:
    """Return what says, before the first step, what is trained, and `show` pairs as the model reads them."""

    def show_pairs(trainer: L.Trainer, module: L.LightningModule) -> None:
        datamodule: PreferenceDataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.is_global_zero and cfg.show:
            for pair in datamodule.first_as_read(cfg.show):
                plain_console().print(pair, soft_wrap=True)

    return [LambdaCallback(on_fit_start=_show_what_is_trained), LambdaCallback(on_fit_start=show_pairs)]


def asked_callbacks(cfg: DictConfig) -> list[L.Callback]:
    """Return the callbacks of `callbacks=` and of `trainer.callbacks`."""
    left = [callback for callback in cfg.callbacks.values() if callback is not None]  # null leaves one out
    asked: list[L.Callback] = [instantiate(callback, **_looks_at(callback)) for callback in left]
    return [*asked, *instantiate(cfg.trainer.get("callbacks") or [])]


def _looks_at(callback: DictConfig) -> dict[str, bool]:
    """Have an early stop by a metric of validations look at it after each of them.

    Lightning looks at the end of an epoch, which a run that ends before its first validation has too: there the metric
    cannot be, and the error would cost the weights.
    """
    by_validations = str(callback.get("monitor")).startswith("val/")
    is_said = callback.get("check_on_train_epoch_end") is not None
    return {"check_on_train_epoch_end": False} if is_early_stop(callback) and by_validations and not is_said else {}


def in_order(own: list[L.Callback], asked: list[L.Callback]) -> list[L.Callback]:
    """Return the callbacks of a run, with averages of weights and the checkpoints that were asked for before those that
    every run has.

    A run goes on from `best.ckpt` or `last.ckpt`: they are to know what `top_k` has kept of their validation. A
    checkpoint of a step is to have the average of that step.

    Args:
        own: those of every run.
        asked: those that a configuration asks for.
    """
    first = [callback for callback in asked if isinstance(callback, WeightAveraging)]
    first += [callback for callback in asked if isinstance(callback, Checkpoint)]
    return [*first, *own, *(callback for callback in asked if callback not in first)]


def _check_shares(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Check the shares that are measured once the data module's sets can be opened."""
    check_shares(trainer, cast(PreferenceDataModule, trainer.datamodule))  # pyright: ignore[reportAttributeAccessIssue]


def _log_a_short_run(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Log every step of a run that would end before its first log: eight steps of 10,240 pairs have a curve too."""
    undeclared: Any = trainer  # `log_every_n_steps` is set, not declared
    if trainer.estimated_stepping_batches < undeclared.log_every_n_steps:
        undeclared.log_every_n_steps = 1


def _show_what_is_trained(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Show what became of every row, how many parameters are trained, and whether a head is new."""
    datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Lightning, not declared
    # Asked on every rank: a sharded head is gathered, and the first would wait for the others for ever.
    origin = module.model.untrained_head if isinstance(module, PairwiseRM) else None
    if trainer.is_global_zero:
        trained, total = count_parameters(module)
        out = plain_console()
        out.print(report_table(set_reports(datamodule)))
        out.print(f"layout {datamodule.layout}: {datamodule.choice.reason}", soft_wrap=True)
        device = trainer.strategy.root_device.type
        fast = "; trainer=gpu computes in bfloat16" if device == "cuda" and trainer.precision == "32-true" else ""
        out.print(f"{total:,} parameters, {trained:,} of them trained, on {device} in {trainer.precision}{fast}")
        head = module.model.head_parameters() if isinstance(module, PairwiseRM) else ()
        if origin is not None and any(parameter.requires_grad for parameter in head):  # a policy's is not trained
            out.print(f"{origin} has no reward head: a new one is drawn, and trained from here", soft_wrap=True)
