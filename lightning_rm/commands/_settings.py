"""What a trainer and other libraries are told in a training run: settings that they would take, and fail with late or
do another thing.

It knows the keys of such settings; what a value's kind is, `_kinds` knows.
"""

from __future__ import annotations

from typing import Any, cast

import lightning as L
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._kinds import misread_number
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.modules.measured import metric_prefix
from lightning_rm.modules.surroundings import check_trainer

STRATEGIES = (
    *("auto", "ddp", "ddp_fork", "ddp_notebook"),
    *("ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"),
)
"""Strategies by name that train here as they should; FSDP2's and DeepSpeed's are objects."""

LEAST = {
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.log_every_n_steps": 0,
    "trainer.num_nodes": 1,
    "trainer.num_sanity_val_steps": -1,
    "optimizer.lr": 0,
    "optimizer.weight_decay": 0,
    "scheduler.warmup": 0,
    "seed": 0,
    "init_seed": 0,
    "members.lora_layers": 1,
    "members.seed": 0,
    "backbone.model.adapter.lora_alpha": 0,
    "backbone.model.config.hidden_size": 1,
    "backbone.model.config.num_hidden_layers": 1,
    "backbone.model.config.num_attention_heads": 1,
    "backbone.model.config.max_position_embeddings": 1,
    "callbacks.early_stopping.min_delta": 0,
    "callbacks.early_stopping.patience": 0,
    "callbacks.progress.refresh_rate": 0,
}
"""The least value of settings whose readers take a smaller one, and fail late or do another thing."""

NOT_TAKEN = {
    "barebones": "it does without checkpoints and logs, which a run has; set debug=profiler to see what takes time, "
    "and leave it out",
    "enable_checkpointing": "a run measures and exports the weights of its checkpoints; set check=true to keep "
    "nothing, and leave it out",
    "logger": "set logger=csv, or another of that group; logger=none is none",
    "plugins": "a run has its own, which writes checkpoints whole; set trainer.precision or trainer.strategy",
}
"""Arguments of Lightning's Trainer that a run sets by itself or cannot do without -> why, and the way out."""

POSITIVE = ("trainer.limit_train_batches", "trainer.val_check_interval")
"""Settings that are null, or above 0."""


def check_settings(cfg: DictConfig) -> None:
    """Check strategy, precision and numbers that have a least value.

    Raises:
        ValueError: for the first that is not taken.
    """
    strategy = cfg.trainer.strategy
    if str(strategy).startswith("deepspeed"):
        raise ValueError(
            f"trainer.strategy={strategy}: Lightning's own takes head and rewards to half precision; set "
            "trainer=deepspeed, and trainer.strategy.stage and offload"
        )
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise ValueError(f"trainer.strategy={strategy}; give {' or '.join(STRATEGIES[:2])}, or set trainer=fsdp2")
    check_trainer(_precision(cfg), ())
    if OmegaConf.is_config(strategy) and _precision(cfg) == "16-mixed":
        raise ValueError("trainer.precision=16-mixed: sharded gradients are not scaled; set bf16-mixed or 32-true")
    for name, why in NOT_TAKEN.items():
        given = cfg.trainer.get(name)
        if given is not None and not (name == "enable_checkpointing" and given):
            raise ValueError(f"trainer.{name}={str(given).lower()} is not taken: {why}")
    if cfg.trainer.max_epochs is None and cfg.trainer.max_steps == -1 and cfg.trainer.get("max_time") is None:
        raise ValueError(
            "trainer.max_epochs=null, and nothing else ends the run: set it, or trainer.max_steps, or trainer.max_time"
        )
    if cfg.trainer.deterministic not in (True, False, None, "warn"):
        raise ValueError(f"trainer.deterministic={cfg.trainer.deterministic}; give true, false or warn")
    if cfg.mode not in ("max", "min"):
        raise ValueError(f"mode={cfg.mode}; give max or min")
    if isinstance(longest := cfg.trainer.get("max_time"), bool | int | float):
        raise ValueError(f"trainer.max_time={longest}; give days, hours, minutes and seconds, as 00:12:00:00")
    for key in ("checkpoint.every_n_train_steps", "data.step_pairs"):  # no argument of a `_target_` says what they take
        if fault := misread_number(key, OmegaConf.select(cfg, key), 1):
            raise ValueError(fault)
    values = {key: OmegaConf.select(cfg, key) for key in (*LEAST, *POSITIVE)}
    for key, least in LEAST.items():
        if values[key] is not None and values[key] < least:
            raise ValueError(f"{key}={values[key]}; give {least} or more")
    for key in POSITIVE:
        if isinstance(values[key], int | float) and values[key] <= 0:
            raise ValueError(f"{key}={values[key]}; give a share or a number above 0, or null")


def check_shares(trainer: L.Trainer, datamodule: PreferenceDataModule) -> None:
    """Check that the shares of validation and test sets that are measured have a batch each, before the first step:
    Lightning would find out of test sets once the run is trained.

    Raises:
        ValueError: if one has none.
    """
    data, every = datamodule, cast(Any, trainer)  # `overfit_batches` is set, not declared
    val_key = "overfit_batches" if every.overfit_batches else "limit_val_batches"
    val = [metric_prefix("val", name) for name in (*data.val_names, *data.val_response_names)]
    test = [metric_prefix("test", name) for name in (*data.test_names, *data.test_response_names)]
    for stage, key, prefixes, load in (
        ("validate", val_key, val, data.val_dataloader),
        ("test", "limit_test_batches", test, data.test_dataloader),
    ):
        share: int | float = getattr(every, key)
        if not isinstance(share, float) or not 0 < share < 1:
            continue
        data.setup(stage)
        for prefix, loader in zip(prefixes, load(), strict=True):
            if int(len(loader) * share) == 0:
                raise ValueError(
                    f"trainer.{key}={share} is less than one of the micro-batches of {prefix}, {len(loader):,} in all: "
                    "give a larger share, or a whole number of them"
                )


def check_precision(cfg: DictConfig, trainer: L.Trainer) -> None:
    """Check that a trainer computes as it was told; Lightning takes bf16-mixed for 16-mixed where there is no GPU.

    Raises:
        ValueError: if it does not.
    """
    if trainer.precision != _precision(cfg):
        raise ValueError(
            f"trainer.precision={cfg.trainer.precision} needs a GPU, and there is none here; set "
            "trainer.precision=32-true, or bf16-mixed"
        )


def micro_batches(cfg: DictConfig, world_size: int) -> int:
    """Return how many micro-batches an optimizer step has: those that `data.step_pairs` takes on all devices together.

        step_pairs=256 batch_pairs=4, eight devices -> 8

    Args:
        cfg: of the run.
        world_size: of the devices that train.

    Raises:
        ValueError: if they do not come to a whole number of micro-batches, or the number itself is given too.
    """
    asked, each, given = cfg.data.step_pairs, cfg.data.batch_pairs, cfg.trainer.accumulate_grad_batches
    if asked is None:
        return given
    if each is None:
        raise ValueError(
            f"data.step_pairs={asked} is made of data.batch_pairs, which is null; set data.step_pairs=null"
        )
    number, rest = divmod(asked, each * world_size)
    if number < 1 or rest:
        raise ValueError(
            f"data.step_pairs={asked} is not a multiple of the {each * world_size} pairs that {world_size} "
            f"device{'s take' if world_size > 1 else ' takes'} at once (data.batch_pairs={each}); change one of them"
        )
    if given not in (1, number):
        raise ValueError(
            f"data.step_pairs={asked} makes {number} micro-batches a step, and trainer.accumulate_grad_batches={given} "
            "says another number: leave one out (data.step_pairs=null)"
        )
    return number


def _precision(cfg: DictConfig) -> str:
    """Return a trainer's precision by its full name: bf16 is bf16-mixed, null is 32-true."""
    told = str(cfg.trainer.precision)
    return {"None": "32-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}.get(told, told)
