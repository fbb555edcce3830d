"""Loaders of a data module in its own place: those of one device, which more of them would each read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.toy import toy_data, toy_module, toy_trainer, weights


def loaders() -> tuple[Any, Any]:
    data = toy_data()
    data.setup("fit")
    return data.train_dataloader(), data.val_dataloader()


def test_one_device_trains_on_loaders_as_on_their_data_module(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit(given := toy_module(), *loaders())
    toy_trainer(tmp_path).fit(whole := toy_module(), toy_data())
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(given).items())


def test_more_micro_batches_a_step_are_refused(tmp_path: Path) -> None:
    """Losses are scaled for the steps of an epoch, of which the last may be short of micro-batches."""
    told = "these training batches are for 1 device and accumulate_grad_batches=1, and the trainer has 1 and 2: hand it"
    with pytest.raises(ValueError, match=told):
        toy_trainer(tmp_path, accumulate_grad_batches=2).fit(toy_module(), *loaders())


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_more_devices_are_refused(tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would train on all pairs, and a validation count all of them twice."""
    trainer = toy_trainer(tmp_path)
    train, val = loaders()
    monkeypatch.setattr(L.Trainer, "distributed_sampler_kwargs", {"num_replicas": 2, "rank": 0})
    with pytest.raises(ValueError, match=rf"for 1 device.* the trainer has 2.*trainer\.{verb}\(module, datamodule"):
        getattr(trainer, verb)(toy_module(), train if verb == "fit" else val)


def test_the_middle_of_an_epoch_is_refused_and_its_end_is_not(tmp_path: Path) -> None:
    every = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=3)
    toy_trainer(tmp_path, callbacks=[every], enable_checkpointing=True).fit(toy_module(), toy_data())
    middle, end = tmp_path / "step=3.ckpt", tmp_path / "step=6.ckpt"
    with pytest.raises(ValueError, match="begin with the epoch, and the checkpoint is in the middle of one"):
        toy_trainer(tmp_path).fit(toy_module(), *loaders(), ckpt_path=middle, weights_only=True)
    trainer = toy_trainer(tmp_path, max_epochs=2)
    trainer.fit(toy_module(), *loaders(), ckpt_path=end, weights_only=True)
    assert trainer.global_step == 12


def test_shuffled_batches_are_not_overfitted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="overfit_batches is for the same batches in every epoch, and these training"):
        toy_trainer(tmp_path, overfit_batches=2).fit(toy_module(), *loaders())
