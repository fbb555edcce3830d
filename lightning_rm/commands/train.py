"""`lightning-rm train`: compose, train, test the best weights, print the results and where they are."""

from __future__ import annotations

import os
import sys
import warnings
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
    GoOn,
    HuggingFaceCheckpoint,
    LastCheckpoint,
    MonitoredInTraining,
    PairRecorder,
    ProgressLines,
    ResumeCheckpoint,
    SpikeRecorder,
    Stop,
)
from lightning_rm.callbacks.checkpoint_files import latest_checkpoint
from lightning_rm.callbacks.monitored import stopped_early
from lightning_rm.commands._alone import RUN_LOCK, released, work_alone
from lightning_rm.commands._checks import BENCHMARK, check_config, check_run, train_monitors, warn_of_a_toy
from lightning_rm.commands._config import plain_console, require_all, resolved
from lightning_rm.commands._entry import command
from lightning_rm.commands._folder import SPIKES, begin, clear_if_nothing, clear_stopped, report, write_counts
from lightning_rm.commands._settings import check_precision, micro_batches
from lightning_rm.commands._stopped import exit_after, requeue
from lightning_rm.commands._tables import report_table, set_reports
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.models.backbone.adapters import count_parameters
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.measured import EvaluationStage, metric_prefix
from lightning_rm.modules.requirements import check_trainer
from lightning_rm.scoring.load import find_folder

QUIET = (
    ".*does not have many workers.*",
    "The number of training batches .* is smaller than the logging interval.*",  # a short run logs every step
    "Checkpoint directory .* exists and is not empty.*",  # of a run that goes on
    ".*dataloader is not resumable.*",  # ours can be resumed
    ".*nn.functional.all_gather is deprecated.*",  # Lightning's call
    ".*torch.distributed.* is deprecated. Please use.*",  # DeepSpeed's calls
    ".*callbacks used to create the checkpoint need to be provided.*",  # of other settings, which are said in one line
    ".*could not find the monitored key.*",  # of a run that ends before a validation; it is said in one line
)
"""What Lightning warns of and a user can do nothing about."""


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
    _take_runs(cfg)
    check_config(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    run = Path(cfg.paths.run)
    tokenizer = instantiate(cfg.backbone.tokenizer)
    module, datamodule = _built(cfg, tokenizer)
    asked = _asked_callbacks(cfg)
    benchmarks = [callback for callback in asked if isinstance(callback, Benchmarks)]
    check_run(cfg, module, datamodule, [name for callback in benchmarks for name in callback.metric_names()])
    warn_of_a_toy(cfg)
    if cfg.check:
        return _check(cfg, module, datamodule, asked)
    # Weights are chosen by a metric of validations alone: a run that reports a test metric keeps its last weights.
    monitor = cfg.monitor if str(cfg.monitor).startswith(("val/", BENCHMARK)) else None
    checkpoints, exported = run / "checkpoints", run / "model"
    checkpoint = BestCheckpoint(checkpoints, monitor, cfg.mode, exported / "best")
    stop = Stop()
    loggers = list(instantiate(cfg.logger.loggers).values())
    callbacks: list[L.Callback] = [
        stop,
        checkpoint,
        LastCheckpoint(checkpoints),
        HuggingFaceCheckpoint(exported, tokenizer, monitor, cfg.mode, checkpoints / "best.ckpt"),
        PairRecorder(run / "pairs"),
        SpikeRecorder(run / SPIKES),
        ResumeCheckpoint(checkpoints / "resume.ckpt", cfg.checkpoint.every_n_train_steps),
        LambdaCallback(on_fit_start=_show_what_is_trained),
        GoOn(),
        LambdaCallback(on_train_start=_log_a_short_run),
        MonitoredInTraining(train_monitors(cfg)),
    ]
    shown = sys.stdout.isatty() or any(isinstance(callback, ProgressBar) for callback in asked)
    if not shown:
        callbacks.append(ProgressLines())
    if loggers and not any(isinstance(callback, LearningRateMonitor) for callback in asked):
        callbacks.append(LearningRateMonitor("step"))
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        logger=loggers or False,
        callbacks=[*callbacks, *asked],
        plugins=[CheckpointFiles()],
        enable_progress_bar=cfg.trainer.get("enable_progress_bar", shown),
    )
    check_precision(cfg, trainer)
    trainer.accumulate_grad_batches = micro_batches(cfg, trainer.world_size)
    if trainer.is_global_zero:
        # A job that Slurm has put back runs once at a time, and a node that died may hold its locks for minutes.
        if not os.environ.get("SLURM_RESTART_COUNT"):
            work_alone(run, RUN_LOCK, "run", "hydra.run.dir")
        _begin_when_training(trainer, run, cfg)
        for logger in trainer.loggers:
            logger.log_hyperparams(resolved(cfg))
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", message=message)
        try:
            results = _fit_and_measure(cfg, trainer, module, datamodule, checkpoint, benchmarks)
        except SystemExit as ended:
            _finished(trainer, exit_code=1)
            _end(ended, stop, trainer)
        except BaseException:
            _finished(trainer, exit_code=1)
            raise
    if trainer.is_global_zero:
        report(run, results, _finished(trainer))
        if told := module.finite.spikes.told():
            plain_console().print(f"{told}; the largest are in {run / SPIKES}, with their pairs", soft_wrap=True)
    if module.num_not_finite:
        told = ", ".join(f"{number:,} of {name}" for name, number in module.num_not_finite.items())
        raise ValueError(f"rewards are not finite: {told}. Training has diverged; lower the learning rate")
    if trainer.is_global_zero and cfg.checkpoint.every_n_train_steps is None:
        clear_stopped(run)
    return _objective(results, cfg.monitor)


def _built(cfg: DictConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[PairwiseRM, PreferenceDataModule]:
    """Return what is trained, and what it is trained on."""
    model: RewardModel = instantiate(cfg.backbone.model, tokenizer=tokenizer)
    if cfg.members is not None:
        model = MemberRewardModel.of(model, instantiate(cfg.members))
    module: PairwiseRM = instantiate(cfg.module, model=model)
    # Called apart: Hydra would take the dataclass for a configuration.
    data: Callable[..., PreferenceDataModule] = instantiate(cfg.data.module, _partial_=True)
    return module, data(tokenizer=tokenizer, reading=module.model.reading)


def _check(cfg: DictConfig, module: PairwiseRM, datamodule: PreferenceDataModule, asked: Sequence[L.Callback]) -> float:
    """Train on one micro-batch, by when most mistakes show, and keep nothing of it; the run leaves no file."""
    stop = LambdaCallback(on_train_start=_step_at_once, on_train_batch_end=_stop)
    own = {"logger": False, "callbacks": [stop], "enable_checkpointing": False, "enable_progress_bar": False}
    trainer: L.Trainer = instantiate(cfg.trainer, min_epochs=None, min_steps=None, **own)
    check_precision(cfg, trainer)
    check_trainer(trainer.precision, asked)
    trainer.accumulate_grad_batches = micro_batches(cfg, trainer.world_size)
    with warnings.catch_warnings():
        for message in QUIET:
            warnings.filterwarnings("ignore", message=message)
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


def _asked_callbacks(cfg: DictConfig) -> list[L.Callback]:
    """Return the callbacks of `callbacks=` and of `trainer.callbacks`."""
    asked: list[L.Callback | None] = list(instantiate(cfg.callbacks).values())
    left = [callback for callback in asked if callback is not None]  # null leaves one out
    return [*left, *instantiate(cfg.trainer.get("callbacks") or [])]


def _begin_when_training(trainer: L.Trainer, run: Path, cfg: DictConfig) -> None:
    """Make the folder ready when training begins, or at once where nothing is trained."""
    goes_on = cfg.resume is not None

    def ready(*_: Any) -> None:
        begin(run, cfg, trainer.global_step if goes_on else None)

    if trainer.max_epochs == 0:
        ready()
    else:
        trainer.callbacks.insert(0, LambdaCallback(on_train_start=ready))  # pyright: ignore[reportAttributeAccessIssue]


def _fit_and_measure(
    cfg: DictConfig,
    trainer: L.Trainer,
    module: PairwiseRM,
    datamodule: PreferenceDataModule,
    checkpoint: BestCheckpoint,
    benchmarks: list[Benchmarks],
) -> dict[str, dict[str, float]]:
    """Train, and measure the best weights: set -> metric -> value."""
    if datamodule.has_train:
        trainer.fit(module, datamodule, ckpt_path=cfg.resume, weights_only=True)
        if trainer.is_global_zero:
            write_counts(Path(cfg.paths.run), datamodule.reports)
            if datamodule.is_streamed:
                plain_console().print(report_table({"train": datamodule.reports["train"]}))
            if (told := stopped_early(trainer)) is not None:
                plain_console().print(told, soft_wrap=True)
    results = {"train": {**module.last_epoch, **(module.finite.counts() if datamodule.has_train else {})}}
    best = checkpoint.best_model_path or None
    if best is None and checkpoint.monitor is not None and datamodule.has_train and trainer.is_global_zero:
        plain_console().print("no validation took place: the last weights are taken for the best")
    if best is not None and checkpoint.never_known and trainer.is_global_zero:
        plain_console().print(
            f"monitor={checkpoint.monitor} was never a number: the last weights are taken for the best (responses "
            "without another beside them have no accuracy: monitor=val/score_rank_correlation)",
            soft_wrap=True,
        )
    stages: tuple[tuple[EvaluationStage, tuple[str, ...], Callable[..., object]], ...] = (
        ("val", (*datamodule.val_names, *datamodule.val_response_names), trainer.validate),
        ("test", (*datamodule.test_names, *datamodule.test_response_names), trainer.test),
    )
    not_finite: dict[str, int] = {}
    for stage, names, evaluate in stages:
        if not names or cfg.trainer[f"limit_{stage}_batches"] == 0:
            continue
        evaluate(module, datamodule=datamodule, ckpt_path=best, weights_only=True, verbose=False)
        not_finite |= module.num_not_finite
        for prefix in (metric_prefix(stage, name) for name in names):
            results[prefix] = _values(trainer.callback_metrics, f"{prefix}/")
        if stage == "val":
            for prefix in (f"{BENCHMARK}{name}" for callback in benchmarks for name in callback.paths):
                results[prefix] = _values(trainer.callback_metrics, f"{prefix}/")
    module.num_not_finite = not_finite
    if not datamodule.has_train and trainer.is_global_zero:
        plain_console().print(report_table(set_reports(datamodule)))
    return results


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


def _finished(trainer: L.Trainer, exit_code: int = 0) -> list[str]:
    """End the runs of W&B, since the next job of a multirun needs its own; return where to look at them."""
    if not trainer.is_global_zero:
        return []
    runs = [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    urls = [run.url for run in runs if not run.offline and run.url]
    for run in runs:
        run.finish(exit_code=exit_code)
    return urls


def _take_runs(cfg: DictConfig) -> None:
    """Replace the folder of a run, where one is named, by what it means: its best weights or latest checkpoint."""
    path = cfg.backbone.get("path")
    if path is not None and (Path(path) / "config.yaml").is_file():
        found = find_folder(Path(path))
        if found is None:
            raise ValueError(f"backbone.path={path!r} is a run without weights in model/best; has it finished?")
        plain_console().print(f"backbone.path: {path} is a run; its weights are read from {found}", soft_wrap=True)
        cfg.backbone.path = str(found)
    if cfg.resume is not None and Path(cfg.resume).is_dir() and (found := latest_checkpoint(cfg.resume)) is not None:
        cfg.resume = str(found)


def _objective(results: dict[str, dict[str, float]], monitor: str | None) -> float:
    """Return the monitored metric, as the results have it; NaN where none is monitored or nothing was measured."""
    if monitor is None or results.keys() == {"train"}:
        return float("nan")
    values = {f"{name}/{metric}": value for name, metrics in results.items() for metric, value in metrics.items()}
    if monitor not in values:
        raise ValueError(f"monitor={monitor!r} did not come out of this run; what did: {', '.join(sorted(values))}")
    return values[monitor]


def _values(metrics: Any, prefix: str) -> dict[str, float]:
    """Return the metrics under a prefix, by the name that follows it."""
    return {key.removeprefix(prefix): float(value) for key, value in metrics.items() if key.startswith(prefix)}


def _log_a_short_run(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Log every step of a run that would end before its first log: eight steps of 10,240 pairs have a curve too."""
    undeclared: Any = trainer  # `log_every_n_steps` is set, not declared
    if trainer.estimated_stepping_batches < undeclared.log_every_n_steps:
        undeclared.log_every_n_steps = 1


def _show_what_is_trained(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Show what became of every row, how many parameters are trained, and whether a head is new."""
    datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Lightning, not declared
    if trainer.is_global_zero:
        trained, total = count_parameters(module)
        out = plain_console()
        out.print(report_table(set_reports(datamodule)))
        out.print(f"layout {datamodule.layout}: {datamodule.choice.reason}", soft_wrap=True)
        device = trainer.strategy.root_device.type
        fast = "; trainer=gpu computes in bfloat16" if device == "cuda" and trainer.precision == "32-true" else ""
        out.print(f"{total:,} parameters, {trained:,} of them trained, on {device} in {trainer.precision}{fast}")
        if isinstance(module, PairwiseRM) and (origin := module.model.untrained_head) is not None:
            out.print(f"{origin} has no reward head: a new one is drawn, and trained from here", soft_wrap=True)


@command("train", end=lambda cfg: clear_if_nothing(Path(cfg.paths.run)))
def main(cfg: DictConfig) -> float:
    """Return the Hydra entry point."""
    return train(cfg)


if __name__ == "__main__":
    main()
