"""One module is fitted again: what an earlier fit counted, or read and did not go on from, is not there any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from tests import methods
from tests.toy import toy_data, toy_model, toy_trainer, weights

ADAMW: Any = methods.partial(torch.optim.AdamW, lr=1e-2)


def test_a_checkpoint_that_was_refused_leaves_no_trace(tmp_path: Path) -> None:
    """Its random numbers would be drawn in the place of the seed's, its sums counted, and its optimizer asked for."""

    def given() -> tuple[PairwiseRM, L.LightningDataModule]:
        torch.manual_seed(0)
        module = methods.module_of("simcse", "float32", ADAMW)
        return module, methods.data_of("simcse", tmp_path, 8)

    def fitted(module: PairwiseRM, data: L.LightningDataModule) -> tuple[dict[str, Tensor], dict[str, float]]:
        torch.manual_seed(1)
        trainer = toy_trainer(tmp_path, log_every_n_steps=3)
        trainer.fit(module, data)
        return weights(module), {name: float(value) for name, value in trainer.callback_metrics.items()}

    first = toy_trainer(tmp_path, max_steps=2)
    first.fit(*given())
    first.save_checkpoint(tmp_path / "a.ckpt")
    expected, metrics = fitted(*given())
    module, data = given()
    start = weights(module)
    module.optimizer = methods.partial(torch.optim.SGD, lr=1e-2)
    with pytest.raises(ValueError, match="the checkpoint was written with another optimizer"):
        toy_trainer(tmp_path).fit(module, data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    module.load_state_dict(start)
    module.optimizer = ADAMW
    found, logged = fitted(module, data)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert logged == metrics


def test_a_run_counts_its_own_skipped_steps(tmp_path: Path) -> None:
    class Broken(BaselineRM):
        broken = True

        def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
            found = super().losses(batch, output)
            return {"loss": found["loss"] * torch.inf} if self.broken else found

    module, data = Broken(toy_model(), ADAMW), toy_data()
    with pytest.warns(UserWarning, match="is not finite, and nothing is changed"):
        toy_trainer(tmp_path, log_every_n_steps=1).fit(module, data)
    assert module.finite.num_skipped == 6
    module.broken = False
    trainer = toy_trainer(tmp_path, log_every_n_steps=1)
    trainer.fit(module, data)
    assert trainer.callback_metrics["train/skipped_steps"] == 0
    trainer.fit_loop.max_epochs = 2  # the same trainer goes on with its run
    module.broken = True
    with pytest.warns(UserWarning, match="is not finite, and nothing is changed"):
        trainer.fit(module, data)
    assert trainer.callback_metrics["train/skipped_steps"] == 6
