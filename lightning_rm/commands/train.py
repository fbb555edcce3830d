"""`lightning-rm train`: compose, train, test the best weights, say what came out and where it lies."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lightning_rm.analysis.run import write_figures
from lightning_rm.callbacks import (
    Benchmarks,
    BestCheckpoint,
    CheckpointFiles,
    GoOn,
    HuggingFaceCheckpoint,
    LastCheckpoint,
    PairRecorder,
    ResumeCheckpoint,
    Stop,
)
from lightning_rm.commands._config import conf_dir, plain_errors, require_all, resolved
from lightning_rm.commands._tables import report_table, results_table, set_reports
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.metrics.groups import group_metric_names
from lightning_rm.metrics.pairs import metric_names
from lightning_rm.models.backbone.adapters import count_parameters
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import EvaluationStage, PairwiseRM, metric_prefix

BENCHMARK = "benchmark/"
"""What the metrics of a benchmark are named after, before its own name."""


def train(cfg: DictConfig) -> float:
    """Run one training job.

    Args:
        cfg: `conf/train.yaml`, composed.

    Returns:
        The monitored metric of the best weights: the objective of a sweep.
    """
    require_all(cfg)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    run = Path(cfg.paths.run)
    tokenizer = instantiate(cfg.backbone.tokenizer)
    model: RewardModel = instantiate(cfg.backbone.model, tokenizer=tokenizer)
    if cfg.members is not None:
        model = MemberRewardModel.of(model, instantiate(cfg.members))
    module: PairwiseRM = instantiate(cfg.module, model=model)
    # Called apart: Hydra would take the dataclass for a configuration.
    datamodule: PreferenceDataModule = instantiate(cfg.data.module, _partial_=True)(
        tokenizer=tokenizer, reading=module.model.reading
    )
    asked = _asked_callbacks(cfg)
    benchmarks = [callback for callback in asked if isinstance(callback, Benchmarks)]
    _check(cfg, module, datamodule, [name for callback in benchmarks for name in callback.metric_names()])
    _warn_of_a_toy(cfg)
    # Weights are chosen by a metric of validations alone: a run that reports a test metric keeps its last weights.
    monitor = cfg.monitor if cfg.monitor.startswith(("val/", BENCHMARK)) else None
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
        ResumeCheckpoint(checkpoints / "resume.ckpt", cfg.checkpoint.every_n_train_steps),
        LambdaCallback(on_fit_start=_show_what_is_trained),
        GoOn(),
    ]
    if loggers and not any(isinstance(callback, LearningRateMonitor) for callback in asked):
        callbacks.append(LearningRateMonitor("step"))
    trainer: L.Trainer = instantiate(
        cfg.trainer, logger=loggers or False, callbacks=[*callbacks, *asked], plugins=[CheckpointFiles()]
    )
    if trainer.is_global_zero:
        run.mkdir(parents=True, exist_ok=True)
        if cfg.resume is None:
            _begin_anew(run)
        OmegaConf.save(cfg, run / "config.yaml", resolve=True)
        for logger in trainer.loggers:
            logger.log_hyperparams(resolved(cfg))

    trainer.fit(module, datamodule, ckpt_path=cfg.resume, weights_only=True)
    if trainer.is_global_zero:
        reports = [asdict(report) | {"name": name} for name, report in datamodule.reports.items()]
        (run / "data.json").write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    results = {"train": _values(trainer.callback_metrics, "train_epoch/")}
    best = checkpoint.best_model_path or None
    stages: tuple[tuple[EvaluationStage, tuple[str, ...], Callable[..., object]], ...] = (
        ("val", (*datamodule.val_names, *datamodule.val_response_names), trainer.validate),
        ("test", (*datamodule.test_names, *datamodule.test_response_names), trainer.test),
    )
    for stage, names, evaluate in stages:
        if not names:
            continue
        evaluate(module, datamodule=datamodule, ckpt_path=best, weights_only=True, verbose=False)
        for prefix in (metric_prefix(stage, name) for name in names):
            results[prefix] = _values(trainer.callback_metrics, f"{prefix}/")
        if stage == "val":
            for prefix in (f"{BENCHMARK}{name}" for callback in benchmarks for name in callback.paths):
                results[prefix] = _values(trainer.callback_metrics, f"{prefix}/")
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # the next run of a multirun is another one
        _report(run, results)
    return _objective(results, cfg.monitor)


def _asked_callbacks(cfg: DictConfig) -> list[L.Callback]:
    """The callbacks of `callbacks=` and of `trainer.callbacks`."""
    asked: list[L.Callback] = list(instantiate(cfg.callbacks).values())
    return [*asked, *instantiate(cfg.trainer.get("callbacks") or [])]


def _check_monitor(cfg: DictConfig, datamodule: PreferenceDataModule, benchmarks: Sequence[str]) -> None:
    """Say that a run will not have the metric that it is to monitor.

    Args:
        cfg: of the run.
        datamodule: names its sets.
        benchmarks: the names of the metrics that its benchmarks will log.
    """
    if cfg.monitor.startswith(BENCHMARK):
        if cfg.monitor not in benchmarks:
            raise ValueError(
                f"monitor={cfg.monitor!r} is of no benchmark of this run (callbacks=benchmarks "
                f"callbacks.benchmarks.paths.NAME=FOLDER); there are: {', '.join(benchmarks) or 'none'}"
            )
        if not (datamodule.val_names or datamodule.val_response_names):
            raise ValueError(
                f"monitor={cfg.monitor!r}: the best weights are chosen at validations, and this run has none; give it "
                "a validation set, or data.val_fraction above 0"
            )
        return
    groups = [metric_prefix("val", name) for name in datamodule.val_response_names]
    groups += [metric_prefix("test", name) for name in datamodule.test_response_names]
    known = [*(metric_prefix("val", name) for name in datamodule.val_names), *groups]
    known += [metric_prefix("test", name) for name in datamodule.test_names]
    of_groups = any(cfg.monitor.startswith(f"{prefix}/") for prefix in groups)
    metric, names = cfg.monitor.rpartition("/")[2], sorted(group_metric_names() if of_groups else metric_names())
    if metric not in names:
        raise ValueError(f"monitor={cfg.monitor!r}: there is no metric {metric!r}; there are {', '.join(names)}")
    if known and not any(cfg.monitor.startswith(f"{prefix}/") for prefix in known):
        raise ValueError(
            f"monitor={cfg.monitor!r} is of no data set of this run; its sets are {', '.join(known)}: "
            "say monitor=SET/accuracy, and mode=min for a loss"
        )


def _check(
    cfg: DictConfig, module: PairwiseRM, datamodule: PreferenceDataModule, benchmarks: Sequence[str] = ()
) -> None:
    """Say what cannot work before anything is read or trained, not after."""
    if cfg.resume is not None and not Path(cfg.resume).exists():
        raise ValueError(f"resume={cfg.resume!r}: there is no such checkpoint")
    _check_monitor(cfg, datamodule, benchmarks)
    if datamodule.treatments and not module.reads_treatments:
        raise ValueError(
            f"treatment={', '.join(datamodule.treatments)}: {type(module).__name__} does not read all their targets, "
            "margins above all; set module=strength_aware"
        )
    if cfg.contrast is not None and "contrast" not in cfg.module:
        raise ValueError(
            f"contrast: {type(module).__name__} takes none; set module=contrastive or meta, or leave it out (~contrast)"
        )
    if bool(datamodule.responses.sets.train) != module.reads_responses:
        raise ValueError(
            f"{type(module).__name__} climbs by responses of a policy and there are none: set responses=jsonl "
            "responses.file=FILE, which lightning-rm sample writes"
            if module.reads_responses
            else f"{type(module).__name__} does not train on responses: set responses.train=null (of files, "
            "responses.file=null), or module=meta"
        )
    limit, longest = module.model.max_tokens, datamodule.policy.max_tokens
    if limit is not None and longest > limit:
        raise ValueError(f"data.max_tokens={longest}, but the backbone has positions for {limit}; set {limit} or less")


def _warn_of_a_toy(cfg: DictConfig) -> None:
    """Say that the default backbone is no language model, to those who have pairs of their own."""
    made = (cfg.data.module.get("train") or {}).get("_target_", "").endswith(SyntheticSource.__name__)
    if cfg.backbone.model["_target_"].endswith(RewardModel.from_config.__name__) and not made:
        rank_zero_warn(
            "this backbone has random weights and the made world's tokenizer, which spells all other words by letters; "
            "for pairs of your own name a model: backbone=hub backbone.path=NAME_OR_FOLDER"
        )


def _begin_anew(run: Path) -> None:
    """Remove what an older run in the folder logged, measured and drew: nobody is to take it for this run's."""
    old = [run / "csv" / "metrics.csv", run / "results.json"]
    for path in (*old, *(run / "pairs").glob("*.*"), *(run / "figures").glob("*.*")):
        path.unlink(missing_ok=True)


def _objective(results: dict[str, dict[str, float]], monitor: str) -> float:
    """The monitored metric, as the results have it; NaN for a run that was measured on nothing."""
    if results.keys() == {"train"}:
        return float("nan")
    values = {f"{name}/{metric}": value for name, metrics in results.items() for metric, value in metrics.items()}
    if monitor not in values:
        raise ValueError(f"monitor={monitor!r} did not come out of this run; what did: {', '.join(sorted(values))}")
    return values[monitor]


def _values(metrics: Any, prefix: str) -> dict[str, float]:
    """The metrics under a prefix, by the name that follows it."""
    return {key.removeprefix(prefix): float(value) for key, value in metrics.items() if key.startswith(prefix)}


def _show_what_is_trained(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Show what became of every row, and how many parameters are trained."""
    datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Lightning, not declared
    if trainer.is_global_zero:
        trained, total = count_parameters(module)
        console = Console()
        console.print(report_table(set_reports(datamodule)))
        console.print(f"layout {datamodule.layout}: {datamodule.choice.reason}", highlight=False, soft_wrap=True)
        console.print(f"{total:,} parameters, {trained:,} of them trained", highlight=False)


def _report(run: Path, results: dict[str, dict[str, float]]) -> None:
    """Write results and figures, print the table and where everything lies."""
    (run / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    console = Console()
    console.print(results_table({name: values for name, values in results.items() if not name.startswith(BENCHMARK)}))
    for name, values in results.items():
        if name.startswith(BENCHMARK):
            told = ", ".join(f"{section} {value:.3f}" for section, value in values.items())
            console.print(f"{name}: {told}", highlight=False)
    try:
        figures = write_figures(run)
    except ValueError as error:  # a diverged run has a table, and no rewards to draw
        console.print(f"no figures: {error}")
        figures = []
    places = {
        "config": run / "config.yaml",
        "data counts": run / "data.json",
        "results": run / "results.json",
        "metrics": run / "csv" / "metrics.csv",
        "W&B run": run / "wandb",
        "per-pair rewards": run / "pairs",
        "figures": run / "figures",
        "checkpoints": run / "checkpoints",
        "best weights": run / "model" / "best",
        "last weights": run / "model" / "last",
    }
    for name, path in places.items():
        if path.exists():
            console.print(f"{name:>18}  {path}", highlight=False, soft_wrap=True)
    if figures:
        console.print(f"{'':>18}  {', '.join(sorted({path.name for path in figures if path.suffix == '.png'}))}")


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="train")
def main(cfg: DictConfig) -> float:
    """The Hydra entry point."""
    for message in (
        ".*does not have many workers.*",
        ".*isinstance.treespec, LeafSpec.*",
        "Total length of `list` across ranks is zero.*",  # a run without validation sets
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with plain_errors(cfg):
        return train(cfg)


if __name__ == "__main__":
    main()
