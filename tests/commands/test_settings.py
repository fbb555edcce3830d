"""A setting that a library would take, and fail with late, is an error in a sentence before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._settings import LEAST, check_precision, check_settings, check_shares, micro_batches
from tests.toy import toy_data


def test_the_defaults_are_taken(cfg: DictConfig) -> None:
    """So that what is changed below is what is refused."""
    check_settings(cfg)


@pytest.mark.parametrize("key", sorted(LEAST))
def test_a_number_is_not_too_small(cfg: DictConfig, key: str) -> None:
    OmegaConf.update(cfg, key, LEAST[key] - 1)
    with pytest.raises(ValueError, match=rf"^{key}={LEAST[key] - 1}; give {LEAST[key]} or more$"):
        check_settings(cfg)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("trainer.val_check_interval", 0, "trainer.val_check_interval=0; give a share or a number above 0, or null"),
        ("trainer.deterministic", "maybe", "trainer.deterministic=maybe; give true, false or warn"),
        ("trainer.strategy", "single_device", "trainer.strategy=single_device; give auto or ddp, or set trainer=fsdp2"),
        ("checkpoint.every_n_train_steps", 1.5, "checkpoint.every_n_train_steps=1.5; give a whole number"),
        ("trainer.precision", "fp16", "trainer.precision=fp16 is not one; set bf16-mixed or 32-true or 16-mixed"),
        ("mode", "best", "mode=best; give max or min"),
        ("trainer.max_time", 5, "trainer.max_time=5; give days, hours, minutes and seconds, as 00:12:00:00"),
        (
            "trainer.barebones",
            True,
            "trainer.barebones=true is not taken: it does without checkpoints and logs, which a run has; set "
            "debug=profiler to see what takes time, and leave it out",
        ),
        (
            "trainer.enable_checkpointing",
            False,
            "trainer.enable_checkpointing=false is not taken: a run measures and exports the weights of its "
            "checkpoints; set check=true to keep nothing, and leave it out",
        ),
        (
            "trainer.logger",
            False,
            "trainer.logger=false is not taken: set logger=csv, or another of that group; logger=none is none",
        ),
        (
            "trainer.max_epochs",
            None,
            "trainer.max_epochs=null, and nothing else ends the run: set it, or trainer.max_steps, or trainer.max_time",
        ),
        ("data.step_pairs", 64.0, "data.step_pairs=64.0; give a whole number, 64"),
    ],
)
def test_what_the_trainer_takes(cfg: DictConfig, key: str, value: object, told: str) -> None:
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_settings(cfg)
    assert str(caught.value) == told


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "transformer-engine"])
def test_a_precision_that_takes_the_rewards_too(cfg: DictConfig, precision: str) -> None:
    OmegaConf.update(cfg, "trainer.precision", precision)
    with pytest.raises(ValueError, match=f"^trainer.precision={precision} takes everything to that type, and .*: set "):
        check_settings(cfg)


def test_no_precision_is_the_trainers_own(cfg: DictConfig) -> None:
    cfg.trainer.precision = None
    check_settings(cfg)
    check_precision(cfg, L.Trainer(accelerator="cpu", precision=None, logger=False))


def test_float16_is_not_sharded(cfg: DictConfig) -> None:
    OmegaConf.update(cfg, "trainer.precision", "16-mixed")
    OmegaConf.update(cfg, "trainer.strategy", {"_target_": "lightning_rm.models.sharding.FSDP2Strategy"})
    with pytest.raises(ValueError, match=r"sharded gradients are not scaled; set bf16-mixed or 32-true"):
        check_settings(cfg)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU")
@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU")
def test_float16_is_not_taken_for_another_type(cfg: DictConfig) -> None:
    cfg.trainer.precision = "16-mixed"
    with pytest.raises(ValueError, match=r"^trainer.precision=16-mixed needs a GPU, .* set trainer.precision=32-true"):
        check_precision(cfg, L.Trainer(accelerator="cpu", precision="16-mixed", logger=False))
    cfg.trainer.precision = "bf16"
    check_precision(cfg, L.Trainer(accelerator="cpu", precision="bf16", logger=False))


def test_a_step_has_the_pairs_that_it_is_asked_for() -> None:
    """256 pairs by 4: 64 micro-batches on one device, 8 on eight; three devices cannot make a step of 256."""

    def cfg(**data: int | None) -> DictConfig:
        accumulated = data.pop("accumulated", 1)
        pairs = {"step_pairs": 256, "batch_pairs": 4, **data}
        return OmegaConf.create({"data": pairs, "trainer": {"accumulate_grad_batches": accumulated}})

    assert [micro_batches(cfg(), devices) for devices in (1, 8)] == [64, 8]
    assert micro_batches(cfg(step_pairs=None, accumulated=3), 8) == 3
    assert micro_batches(cfg(accumulated=64), 1) == 64
    for wrong, devices, told in (
        (cfg(), 3, "is not a multiple of the 12 pairs that 3 devices take at once"),
        (cfg(batch_pairs=512), 1, "the 512 pairs that 1 device takes"),
        (cfg(batch_pairs=None), 1, "data.batch_pairs, which is null"),
        (cfg(accumulated=2), 1, "makes 64 micro-batches a step, and .*=2 says another"),
    ):
        with pytest.raises(ValueError, match=told):
            micro_batches(wrong, devices)


@pytest.mark.parametrize("key", ["limit_val_batches", "limit_test_batches", "overfit_batches"])
def test_a_share_that_is_measured_has_a_batch(key: str, tmp_path: Path) -> None:
    """Two micro-batches of four pairs: a half is one of them, and a third is none, said before the first step."""
    data = toy_data(num_val=8, cache_dir=tmp_path)
    options: dict[str, Any] = {"accelerator": "cpu", "logger": False}
    check_shares(L.Trainer(**options, **{key: 0.5}), data)
    told = "test" if key == "limit_test_batches" else "val"
    with pytest.raises(ValueError, match=rf"^trainer.{key}=0.3 is less than one of the micro-batches of {told}, 2 in"):
        check_shares(L.Trainer(**options, **{key: 0.3}), data)
