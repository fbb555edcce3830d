"""Lightning's searches for a learning rate and for a batch size: they leave no trace but what they set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner.tuning import Tuner

from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from tests import methods
from tests.toy import toy_data, toy_model, toy_module, toy_trainer, weights

ADAMW: Any = methods.partial(torch.optim.AdamW, lr=1e-2)


def trained(module: PairwiseRM, data: L.LightningDataModule, folder: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    toy_trainer(folder).fit(module, data)
    return weights(module)


@pytest.mark.parametrize("method", ["simcse", "swav", "meta"])
def test_a_search_leaves_no_trace(method: str, tmp_path: Path) -> None:
    """Under dropout, with a queue of prototypes, and with theta' beside theta."""

    def given() -> tuple[PairwiseRM, Any]:
        torch.manual_seed(0)
        return methods.module_of(method, "float32", ADAMW), methods.data_of(method, tmp_path, 8)

    plain = trained(*given(), tmp_path)
    module, data = given()
    Tuner(toy_trainer(tmp_path)).lr_find(module, data, num_training=3, update_attr=False)
    assert all(torch.equal(plain[name], value) for name, value in trained(module, data, tmp_path).items())
    module, data = given()
    Tuner(toy_trainer(tmp_path)).scale_batch_size(
        module, data, batch_arg_name="batch_pairs", init_val=4, max_trials=2, steps_per_trial=1
    )
    assert data.batch_pairs == 8
    assert all(torch.equal(plain[name], value) for name, value in trained(module, data, tmp_path).items())


def test_the_rate_that_is_found_is_trained_with(tmp_path: Path) -> None:
    module, data = toy_module(lr=1e-7, head_lr=0.5), toy_data(64)
    assert module.lr == 1e-7
    found = Tuner(toy_trainer(tmp_path)).lr_find(module, data, num_training=16, min_lr=1e-5, max_lr=0.1)
    assert found is not None
    assert module.lr == found.suggestion()
    trainer = toy_trainer(tmp_path, max_steps=1)
    trainer.fit(module, data)
    assert {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups} == {
        "backbone": module.lr,
        "backbone_no_decay": module.lr,
        "head": 0.5,
    }


def test_a_search_within_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"LearningRateFinder as a callback leaves .*Tuner\(trainer\)\.lr_find"):
        toy_trainer(tmp_path, callbacks=[LearningRateFinder()]).fit(toy_module(), toy_data())


def test_a_batch_is_as_large_as_is_tried(tmp_path: Path) -> None:
    class Watched(BaselineRM):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            sizes.append(batch.num_pairs)
            super().on_train_batch_start(batch, batch_idx)

    sizes: list[int] = []
    module, data = Watched(toy_model(), ADAMW), toy_data(batch_pairs=2)
    Tuner(toy_trainer(tmp_path)).scale_batch_size(
        module, data, batch_arg_name="batch_pairs", max_trials=3, steps_per_trial=2
    )
    assert sizes == [2, 2, 4, 4, 8, 8]
    assert data.batch_pairs == 8
