"""`lightning-rm train`: compose, train, test the best weights, print the results and where they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor, ProgressBar
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from lightning_rm.callbacks import (
    Benchmarks,
    BestCheckpoint,
    CheckpointFiles,
    ProgressLines,
    Stop,
)
from lightning_rm.callbacks.averages import check_averages
from lightning_rm.commands._alone import RUN_LOCK, released, work_alone
from lightning_rm.commands._checks import BENCHMARK, check_config, check_run, warn_of_a_toy
from lightning_rm.commands._config import plain_console, require_all, resolved
from lightning_rm.commands._ended import clear_stopped, report
from lightning_rm.commands._entry import command
from lightning_rm.commands._folder import SPIKES, begin, clear_if_nothing
from lightning_rm.commands._found import check_free, check_more_to_train, take_runs
from lightning_rm.commands._measured import fit_and_measure, objective
from lightning_rm.commands._quiet import quiet
from lightning_rm.commands._run_callbacks import asked_callbacks, in_order, own_callbacks, shown
from lightning_rm.commands._settings import check_precision, micro_batches
from lightning_rm.commands._stopped import exit_after, requeue
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.loggers import QuietWandbLogger
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.surroundings import check_trainer


def train(cfg: DictConfig) -> float:
    """Run one training job.

    Args:
        cfg: `conf/train.yaml`, composed.

    Returns:
        The monitored metric of the best weights: the objective of a sweep.
    """
    with released():
        return _train(cfg)


def _train(cfg: DictConfig) -> float:
    """Run one training job in its folder, which is given back by `train`."""
    require_all(cfg)
    take_runs(cfg)
    check_config(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    run = Path(cfg.paths.run)
    if cfg.resume is None and not cfg.check and not cfg.overwrite:
        check_free(run)
    tokenizer = instantiate(cfg.backbone.tokenizer)
    module, datamodule = _built(cfg, tokenizer)
    asked = asked_callbacks(cfg)
    benchmarks = [callback for callback in asked if isinstance(callback, Benchmarks)]
    check_run(cfg, module, datamodule, [name for callback in benchmarks for name in callback.metric_names()])
    warn_of_a_toy(cfg)
    if cfg.check:
        return _check(cfg, module, datamodule, asked)
    # Weights are chosen by a metric of validations alone: a run that reports a test metric keeps its last weights.
    monitor = cfg.monitor if str(cfg.monitor).startswith(("val/", BENCHMARK)) else None
    checkpoint = BestCheckpoint(run / "checkpoints", monitor, cfg.mode, run / "model" / "best")
    stop = Stop()
    own = [stop, checkpoint, *own_callbacks(cfg, run, tokenizer, monitor)]
    if cfg.resume is not None:
        own.insert(0, _more_to_train(run, cfg))  # before what writes at a training's end
    trainer = _trainer(cfg, own, asked)
    if trainer.is_global_zero:
        # A job that Slurm has put back runs once at a time, and a node that died may hold its locks for minutes.
        if not os.environ.get("SLURM_RESTART_COUNT"):
            work_alone(run, RUN_LOCK, "run", "hydra.run.dir")
        _begin_when_training(trainer, run, cfg)
        for logger in trainer.loggers:
            if cfg.resume is not None and isinstance(logger, QuietWandbLogger):
                logger.go_on(Path(cfg.resume).parent.parent)
            logger.log_hyperparams(resolved(cfg))
    with quiet():
        try:
            results = fit_and_measure(cfg, trainer, module, datamodule, checkpoint, benchmarks)
        except SystemExit as ended:
            _finished(trainer, exit_code=1)
            _end(ended, stop, trainer)
        except BaseException:
            _finished(trainer, exit_code=1)
            raise
    if trainer.is_global_zero:
        try:
            report(run, results, _urls(trainer))
        finally:  # which may wait for a network, and fail
            _finished(trainer)
        if told := module.finite.spikes.told():
            plain_console().print(f"{told}; the largest are in {run / SPIKES}, with their pairs", soft_wrap=True)
    if module.num_not_finite:
        told = ", ".join(f"{number:,} of {name}" for name, number in module.num_not_finite.items())
        raise ValueError(f"rewards are not finite: {told}. Training has diverged; lower the learning rate")
    if trainer.is_global_zero and cfg.checkpoint.every_n_train_steps is None:
        clear_stopped(run)
    return objective(results, cfg.monitor)


def _built(cfg: DictConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[PairwiseRM, PreferenceDataModule]:
    """Return what is trained, and what it is trained on."""
    model: RewardModel = instantiate(cfg.backbone.model, tokenizer=tokenizer)
    if cfg.members is not None:
        model = MemberRewardModel.of(model, instantiate(cfg.members))
    module: PairwiseRM = instantiate(cfg.module, model=model)
    # Called apart: Hydra would take the dataclass for a configuration.
    data: Callable[..., PreferenceDataModule] = instantiate(cfg.data.module, _partial_=True)
    return module, data(tokenizer=tokenizer, reading=module.model.reading)


def _trainer(cfg: DictConfig, own: list[L.Callback], asked: list[L.Callback]) -> L.Trainer:
    """Return the trainer of a run, with its own callbacks and those that are asked for.

    Where no bar is shown there are lines, and where something is logged, the learning rate is.
    """
    loggers = list(instantiate(cfg.logger.loggers).values())
    shown = sys.stdout.isatty() or any(isinstance(callback, ProgressBar) for callback in asked)
    if not shown:
        own.append(ProgressLines())
    if loggers and not any(isinstance(callback, LearningRateMonitor) for callback in asked):
        own.append(LearningRateMonitor("step"))
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        logger=loggers or False,
        callbacks=in_order(own, asked),
        plugins=[CheckpointFiles()],
        enable_progress_bar=cfg.trainer.get("enable_progress_bar", shown),
    )
    check_averages(asked, trainer.strategy)
    return _as_told(cfg, trainer)


def _as_told(cfg: DictConfig, trainer: L.Trainer) -> L.Trainer:
    """Return a trainer that computes in the precision it was told, with the micro-batches that make a step."""
    check_precision(cfg, trainer)
    trainer.accumulate_grad_batches = micro_batches(cfg, trainer.world_size)
    return trainer


def _check(cfg: DictConfig, module: PairwiseRM, datamodule: PreferenceDataModule, asked: Sequence[L.Callback]) -> float:
    """Train on one micro-batch, by when most mistakes show, and keep nothing of it; the run leaves no file."""
    stop = LambdaCallback(on_train_start=_step_at_once, on_train_batch_end=_stop)
    callbacks = [stop, *shown(cfg)]
    own = {"logger": False, "callbacks": callbacks, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = _as_told(cfg, instantiate(cfg.trainer, min_epochs=None, min_steps=None, **own))
    check_trainer(trainer.precision, asked)
    check_averages(asked, trainer.strategy)
    with quiet():
        trainer.fit(module, datamodule)
    if trainer.is_global_zero:
        plain_console().print("settings, model and data go together; nothing that was trained is kept (check=true)")
    return float("nan")


def _step_at_once(trainer: L.Trainer, *_: Any) -> None:
    """Take an optimizer step after the first micro-batch, and validate nothing; all is set up as it was asked for."""
    trainer.accumulate_grad_batches, trainer.limit_val_batches = 1, 0


def _stop(trainer: L.Trainer, *_: Any) -> None:
    """End a training after the micro-batch that it is at."""
    trainer.should_stop = True


def _begin_when_training(trainer: L.Trainer, run: Path, cfg: DictConfig) -> None:
    """Make the folder ready when training begins, or at once where nothing is trained."""
    goes_on = cfg.resume is not None

    def ready(*_: Any) -> None:
        begin(run, cfg, trainer.global_step if goes_on else None)

    if trainer.max_epochs == 0:
        ready()
    else:
        trainer.callbacks.insert(0, LambdaCallback(on_train_start=ready))  # pyright: ignore[reportAttributeAccessIssue]


def _more_to_train(run: Path, cfg: DictConfig) -> L.Callback:
    """Return what checks, on every rank, that a run which goes on trains, or is the one that has ended there."""
    began: list[bool] = []

    def begins(*_: Any) -> None:
        began.append(True)

    def ended(*_: Any) -> None:
        if not began:  # Lightning skips a training that is done, and would go on to measure
            check_more_to_train(run, cfg)

    return LambdaCallback(on_train_start=begins, on_fit_end=ended)


def _end(ended: SystemExit, stop: Stop, trainer: L.Trainer) -> NoReturn:
    """Exit with the code that a shell expects after a signal, if there was one; Lightning's own code is 1 or 0."""
    stop.hand_back()
    if stop.signal is not None and stop.signal.name == "SIGUSR1" and trainer.is_global_zero:
        requeue()
    if stop.signal is not None:
        raise SystemExit(stop.exit_code) from None
    if isinstance(ended, SIGTERMException):
        raise SystemExit(143) from None
    cause = ended.__context__
    if isinstance(cause, KeyboardInterrupt):  # between stages, where no `Stop` listens
        exit_after(cause)
    raise ended


def _urls(trainer: L.Trainer) -> list[str]:
    """Return where W&B shows this run."""
    runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return [run.url for run in runs if not run.offline and run.url]


def _finished(trainer: L.Trainer, exit_code: int = 0) -> None:
    """End the runs of W&B, since the next job of a multirun needs its own."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=exit_code)


@command("train", end=lambda cfg: clear_if_nothing(Path(cfg.paths.run)))
def main(cfg: DictConfig) -> float:
    """Return the Hydra entry point."""
    return train(cfg)


if __name__ == "__main__":
    main()
