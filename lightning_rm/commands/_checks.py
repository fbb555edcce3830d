"""What cannot work in a training run, found before anything is read or trained."""

from __future__ import annotations

import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf

from lightning_rm.callbacks.checkpoint_files import read_checkpoint
from lightning_rm.commands._config import is_given
from lightning_rm.commands._data import file_key
from lightning_rm.commands._settings import check_settings
from lightning_rm.counts import check_counts
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.metrics.groups import group_metric_names
from lightning_rm.metrics.pairs import metric_names
from lightning_rm.metrics.scores import score_metric_names
from lightning_rm.metrics.text import text_metric_names
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.measured import metric_prefix

BENCHMARK = "benchmark/"
"""What the metrics of a benchmark are named after, before its own name."""

TRAIN = "train/"
"""What the metrics of training are named after."""


def check_config(cfg: DictConfig) -> None:
    """Say what the configuration alone shows: settings that are not to be taken, adapters without a kind, W&B without a
    key, a checkpoint that is not one.

    Raises:
        ValueError: for each of them.
    """
    check_settings(cfg)
    check_counts(0, show=cfg.show)
    for key, way in (
        ("lora", "backbone=hub_lora backbone.path=NAME_OR_FOLDER, which has backbone.model.lora.rank and others"),
        ("adapter", "peft=lora (or dora, rslora, vera, ia3), which has backbone.model.adapter.r and others"),
    ):
        asked = cfg.backbone.model.get(key)
        if OmegaConf.is_config(asked) and "_target_" not in asked:
            raise ValueError(
                f"backbone.model.{key}={OmegaConf.to_container(asked)} says how adapters are, and there are none: "
                f"set {way}"
            )
    if cfg.logger.get("offline") is False and not _has_wandb_key():
        raise ValueError(
            "logger.offline=false sends the run to W&B, and there is no key for it here: set WANDB_API_KEY, or run "
            "`wandb login` once; or leave logger.offline=true and send the run later with `wandb sync`"
        )
    if cfg.resume is not None:
        read_checkpoint(cfg.resume)


def check_run(
    cfg: DictConfig, module: PairwiseRM, datamodule: PreferenceDataModule, benchmarks: Sequence[str] = ()
) -> None:
    """Say what in a module and its data does not go together.

    Args:
        cfg: of the run.
        module: what is trained.
        datamodule: what it is trained on.
        benchmarks: the names of the metrics that its benchmarks will log.

    Raises:
        ValueError: for each of them.
    """
    if not datamodule.has_train and cfg.trainer.max_epochs != 0:
        raise ValueError(
            f"there is nothing to train on: the data names no file to train on ({file_key(cfg, 'train')}=null); give "
            "one, or trainer.max_epochs=0 to measure alone"
        )
    _check_monitor("monitor", cfg.monitor, cfg, module, datamodule, benchmarks)
    for name, callback in cfg.callbacks.items():
        if callback is None:
            continue
        key, monitor = f"callbacks.{name}.monitor", callback.get("monitor")
        if monitor is None and is_early_stop(callback):
            raise ValueError(f"{key}=null: early stopping goes by a metric; name one, as val/accuracy")
        if monitor is None or str(monitor).startswith(TRAIN):
            continue
        if not str(monitor).startswith(("val/", BENCHMARK)):
            raise ValueError(
                f"{key}={monitor!r} is not logged while a run trains; give a metric of a validation, as val/accuracy, "
                "of a benchmark, or of training, as train/loss"
            )
        _check_monitor(key, monitor, cfg, module, datamodule, benchmarks)
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
        unset = "" if is_given("data.max_tokens") else ", which holds where none is given"
        raise ValueError(
            f"data.max_tokens={longest}{unset}, but the backbone has positions for {limit}; "
            f"set data.max_tokens={limit} or less"
        )


def is_early_stop(callback: DictConfig) -> bool:
    """Tell whether a configured callback is Lightning's `EarlyStopping`, or one of that name."""
    return str(callback.get("_target_")).endswith(".EarlyStopping")


def train_monitors(cfg: DictConfig) -> dict[str, str]:
    """Return the metrics of training that callbacks of a run go by, by the keys that set them."""
    named = {
        f"callbacks.{name}.monitor": callback.get("monitor") for name, callback in cfg.callbacks.items() if callback
    }
    return {key: monitor for key, monitor in named.items() if str(monitor).startswith(TRAIN)}


def warn_of_a_toy(cfg: DictConfig) -> None:
    """Say that the default backbone is not a language model, to those who have pairs of their own."""
    made = (cfg.data.module.get("train") or {}).get("_target_", "").endswith(SyntheticSource.__name__)
    if cfg.backbone.model["_target_"].endswith(RewardModel.from_config.__name__) and not made:
        rank_zero_warn(
            "this backbone has random weights and the made world's tokenizer, which spells all other words by letters; "
            "for pairs of your own name a model: backbone=hub backbone.path=NAME_OR_FOLDER"
        )


def _check_monitor(
    key: str,
    monitor: str | None,
    cfg: DictConfig,
    module: PairwiseRM,
    datamodule: PreferenceDataModule,
    benchmarks: Sequence[str],
) -> None:
    """Say that a run will not have the metric that it, or one of its callbacks, is to monitor.

    Args:
        key: what sets it.
        monitor: the metric; None for none.
        cfg: of the run.
        module: what is trained, whose metrics are asked for.
        datamodule: names its sets.
        benchmarks: the names of the metrics that its benchmarks will log.
    """
    if monitor is None:  # the last weights are kept
        return
    if monitor.startswith(BENCHMARK):
        if monitor not in benchmarks:
            raise ValueError(
                f"{key}={monitor!r} is of no benchmark of this run (callbacks=benchmarks "
                f"callbacks.benchmarks.paths.NAME=FOLDER); there are: {', '.join(benchmarks) or 'none'}"
            )
        if not (datamodule.val_names or datamodule.val_response_names):
            raise ValueError(
                f"{key}={monitor!r}: the best weights are chosen at validations, and this run has none; give it "
                "a validation set, or data.val_fraction above 0"
            )
        return
    if monitor.startswith("val/") and cfg.trainer.limit_val_batches == 0:
        raise ValueError(
            f"trainer.limit_val_batches=0 validates nothing, and {key}={monitor} chooses the best weights by a "
            "validation: set monitor=test/accuracy, which keeps the last weights, or validate"
        )
    groups = [metric_prefix("val", name) for name in datamodule.val_response_names]
    groups += [metric_prefix("test", name) for name in datamodule.test_response_names]
    known = [*(metric_prefix("val", name) for name in datamodule.val_names), *groups]
    known += [metric_prefix("test", name) for name in datamodule.test_names]
    of_groups = any(monitor.startswith(f"{prefix}/") for prefix in groups)
    of_scores = score_metric_names() if module.reads_single_responses else set[str]()
    of_pairs = text_metric_names() if module.measures_text else metric_names() | of_scores
    metric, names = monitor.rpartition("/")[2], sorted(group_metric_names() if of_groups else of_pairs)
    if metric not in names:
        raise ValueError(f"{key}={monitor!r}: there is no metric {metric!r}; there are {', '.join(names)}")
    if known and not any(monitor.startswith(f"{prefix}/") for prefix in known):
        raise ValueError(
            f"{key}={monitor!r} is of no data set of this run; its sets are {', '.join(known)}: "
            "say monitor=SET/accuracy, and mode=min for a loss"
        )


def _has_wandb_key() -> bool:
    """Tell whether W&B would find a key, or needs none."""
    environment = os.environ
    if environment.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return True
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    path = Path(environment.get("NETRC") or Path.home() / ".netrc")
    try:
        return host is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
