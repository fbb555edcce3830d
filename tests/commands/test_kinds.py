"""A value of another kind, or too small, is an error in a sentence before anything is built."""

from __future__ import annotations

import lightning as L
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._checks import LEAST, check_config, check_precision
from lightning_rm.commands._kinds import check_kinds, misread_number
from tests.commands.test_conf import composed


@pytest.fixture(scope="module")
def whole() -> DictConfig:
    return composed("callbacks=[early_stopping,top_k,progress]", "peft=lora", "hydra.runtime.output_dir=run")


@pytest.fixture
def cfg(whole: DictConfig) -> DictConfig:
    left = whole.copy()
    OmegaConf.set_struct(left, False)
    return left


def test_the_defaults_are_of_the_kinds_that_are_taken(cfg: DictConfig) -> None:
    check_kinds(cfg)
    check_config(cfg)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("callbacks.early_stopping.patience", "two", "callbacks.early_stopping.patience=two; give a whole number"),
        ("callbacks.top_k.save_top_k", 2.5, "callbacks.top_k.save_top_k=2.5; give a whole number"),
        ("trainer.limit_val_batches", "x", "trainer.limit_val_batches=x; give a number or null"),
        ("data.epochs", 2.0, "data.epochs=2.0; give a whole number, 2 or null"),  # by trainer.max_epochs
        ("data.batch_tokens", "many", "data.batch_tokens=many; give a whole number or null"),
        ("optimizer.fused", "maybe", "optimizer.fused=maybe; give true or false or null"),
        ("module.max_skipped", None, "module.max_skipped=null; give a whole number"),
        ("module.head_lr", True, "module.head_lr=true; give a number or null"),
    ],
)
def test_an_argument_takes_what_its_type_says(cfg: DictConfig, key: str, value: object, told: str) -> None:
    OmegaConf.update(cfg, key, value)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_kinds(cfg)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("key", "value", "default", "told"),
    [
        ("shard_pairs", 2.5, 500, "shard_pairs=2.5; give a whole number"),
        ("power", "much", 0.01, "power=much; give a number"),
        ("data.num_pairs", 1e5, 3, "data.num_pairs=100000.0; give a whole number, 100000"),
        ("power", 1, 0.01, None),
        ("scheduler.warmup", 0.1, 500, None),  # of a run that has a number of steps where others have a share
        ("devices", "auto", 1, None),
        ("seed", "${init_seed}", 0, None),
        ("check", "no", False, None),  # not a number; told otherwise
    ],
)
def test_a_number_stays_a_number(key: str, value: object, default: object, told: str | None) -> None:
    assert misread_number(key, value, default) == told


@pytest.mark.parametrize("key", sorted(LEAST))
def test_a_number_is_not_too_small(cfg: DictConfig, key: str) -> None:
    OmegaConf.update(cfg, key, LEAST[key] - 1)
    with pytest.raises(ValueError, match=rf"^{key}={LEAST[key] - 1}; give {LEAST[key]} or more$"):
        check_config(cfg)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("trainer.val_check_interval", 0, "trainer.val_check_interval=0; give a share or a number above 0, or null"),
        ("trainer.deterministic", "maybe", "trainer.deterministic=maybe; give true, false or warn"),
        ("trainer.strategy", "single_device", "trainer.strategy=single_device; give auto or ddp, or set trainer=fsdp2"),
        ("checkpoint.every_n_train_steps", 1.5, "checkpoint.every_n_train_steps=1.5; give a whole number"),
    ],
)
def test_what_the_trainer_takes(cfg: DictConfig, key: str, value: object, told: str) -> None:
    OmegaConf.update(cfg, key, value)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_config(cfg)
    assert str(caught.value) == told


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "transformer-engine"])
def test_a_precision_that_takes_the_rewards_too(cfg: DictConfig, precision: str) -> None:
    OmegaConf.update(cfg, "trainer.precision", precision)
    with pytest.raises(ValueError, match=f"^trainer.precision={precision} takes everything to that type, and .*: set "):
        check_config(cfg)


def test_float16_is_not_sharded(cfg: DictConfig) -> None:
    OmegaConf.update(cfg, "trainer.precision", "16-mixed")
    OmegaConf.update(cfg, "trainer.strategy", {"_target_": "lightning_rm.models.sharding.FSDP2Strategy"})
    with pytest.raises(ValueError, match=r"FSDP2 scales no gradients; set bf16-mixed or 32-true"):
        check_config(cfg)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU")
@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU")
def test_float16_is_not_taken_for_another_type(cfg: DictConfig) -> None:
    cfg.trainer.precision = "16-mixed"
    with pytest.raises(ValueError, match=r"^trainer.precision=16-mixed needs a GPU, .* set trainer.precision=32-true"):
        check_precision(cfg, L.Trainer(accelerator="cpu", precision="16-mixed", logger=False))
    cfg.trainer.precision = "bf16"
    check_precision(cfg, L.Trainer(accelerator="cpu", precision="bf16", logger=False))
