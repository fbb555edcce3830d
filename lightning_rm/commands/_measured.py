"""What a training run comes to: it trains, measures the best weights, and finds what a sweep looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from lightning_rm.analysis.runs import own_metrics
from lightning_rm.callbacks import Benchmarks, BestCheckpoint
from lightning_rm.callbacks.averages import forget_averages
from lightning_rm.callbacks.monitored import stopped_early
from lightning_rm.commands._checks import BENCHMARK
from lightning_rm.commands._config import plain_console
from lightning_rm.commands._ended import write_counts
from lightning_rm.commands._tables import report_table, set_reports
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.measured import EvaluationStage, metric_prefix

Results = dict[str, dict[str, float]]
"""Set -> metric -> value."""


def fit_and_measure(
    cfg: DictConfig,
    trainer: L.Trainer,
    module: PairwiseRM,
    datamodule: PreferenceDataModule,
    checkpoint: BestCheckpoint,
    benchmarks: Sequence[Benchmarks],
) -> Results:
    """Train, and measure the best weights; `module.num_not_finite` is of all sets then."""
    counts: dict[str, float] = {}
    if datamodule.has_train:
        trainer.fit(module, datamodule, ckpt_path=cfg.resume, weights_only=True)
        forget_averages(trainer)
        counts = module.finite.counts()
        if trainer.is_global_zero:
            write_counts(Path(cfg.paths.run), datamodule.reports)
            _tell(trainer, datamodule, checkpoint)
    results = {"train": {**module.last_epoch, **counts}}
    stages: tuple[tuple[EvaluationStage, tuple[str, ...], Callable[..., object]], ...] = (
        ("val", (*datamodule.val_names, *datamodule.val_response_names), trainer.validate),
        ("test", (*datamodule.test_names, *datamodule.test_response_names), trainer.test),
    )
    best = checkpoint.best_model_path or None
    not_finite: dict[str, int] = {}
    for stage, names, evaluate in stages:
        if not names or cfg.trainer[f"limit_{stage}_batches"] == 0:
            continue
        evaluate(module, datamodule=datamodule, ckpt_path=best, weights_only=True, verbose=False)
        not_finite |= module.num_not_finite
        prefixes = [metric_prefix(stage, name) for name in names]
        if stage == "val":
            prefixes += [f"{BENCHMARK}{name}" for callback in benchmarks for name in callback.paths]
        results |= {prefix: _values(trainer.callback_metrics, prefix, prefixes) for prefix in prefixes}
    module.num_not_finite = not_finite
    if not datamodule.has_train and trainer.is_global_zero:
        plain_console().print(report_table(set_reports(datamodule)))
    return results


def _tell(trainer: L.Trainer, datamodule: PreferenceDataModule, checkpoint: BestCheckpoint) -> None:
    """Say of a training that has ended what a user would not expect."""
    out = plain_console()
    if datamodule.is_streamed:
        out.print(report_table({"train": datamodule.reports["train"]}))
    if (told := stopped_early(trainer)) is not None:
        out.print(told, soft_wrap=True)
    if checkpoint.monitor is not None and not checkpoint.best_model_path:
        out.print("no validation took place: the last weights are taken for the best")
    elif checkpoint.monitor is not None and checkpoint.never_known:
        why = (
            "responses without another beside them have no accuracy: monitor=val/score_rank_correlation"
            if checkpoint.monitor.endswith("accuracy")
            else "a correlation needs scores that differ, and metrics of pairs need two responses"
        )
        out.print(
            f"monitor={checkpoint.monitor} was never a number: the last weights are taken for the best ({why})",
            soft_wrap=True,
        )


def objective(results: Results, monitor: str | None) -> float:
    """Return the monitored metric, as the results have it; NaN where none is monitored or nothing was measured."""
    if monitor is None or results.keys() == {"train"}:
        return float("nan")
    values = {f"{name}/{metric}": value for name, metrics in results.items() for metric, value in metrics.items()}
    if monitor not in values:
        raise ValueError(f"monitor={monitor!r} did not come out of this run; what did: {', '.join(sorted(values))}")
    return values[monitor]


def _values(metrics: Any, prefix: str, prefixes: Sequence[str]) -> dict[str, float]:
    """Return the metrics under a prefix, by the name that follows it; none of `test/ood` is one of `test`."""
    found = {
        key.removeprefix(f"{prefix}/"): float(value) for key, value in metrics.items() if key.startswith(f"{prefix}/")
    }
    return dict(own_metrics(prefix, found, prefixes))
