from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.callbacks import HuggingFaceCheckpoint
from lightning_rm.callbacks.checkpoint_files import read_checkpoint
from lightning_rm.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.modules.baseline import BaselineRM
from tests.toy import toy_data, toy_model, toy_module, toy_trainer


def test_the_last_folder_holds_the_last_weights_and_the_best_those_of_the_best_validation(tmp_path: Path) -> None:
    saved: list[tuple[str, torch.Tensor, float | None]] = []

    class Watch(HuggingFaceCheckpoint):
        def _save(self, pl_module: L.LightningModule, name: str) -> None:
            super()._save(pl_module, name)
            saved.append((name, load_file(self.folder / name / "model.safetensors")["score.weight"], self.best))

    callback = Watch(tmp_path / "model", world_tokenizer(), monitor="val/nll", mode="min")
    module = toy_module(lr=3e-2)
    trainer = toy_trainer(tmp_path, max_epochs=4, callbacks=[callback])
    trainer.fit(module, toy_data(num_val=15))
    values = [value for name, _, value in saved if name == "best"]
    assert values == sorted(values, reverse=True)
    assert saved[-1][0] == "last"
    assert torch.equal(saved[-1][1], module.model.backbone.score.weight.detach())
    best = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model" / "best")
    assert torch.equal(best.score.weight.detach(), saved[-2][1])


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(tmp_path: Path) -> None:
    callback = HuggingFaceCheckpoint(tmp_path, world_tokenizer(), monitor="val/acc")
    with pytest.raises(ValueError, match=r"monitor='val/acc' is not logged.*val/accuracy"):
        toy_trainer(tmp_path, callbacks=[callback]).fit(toy_module(), toy_data())


def test_without_validation_the_best_is_the_last(tmp_path: Path) -> None:
    callback = HuggingFaceCheckpoint(tmp_path, world_tokenizer(), monitor=None)
    toy_trainer(tmp_path, callbacks=[callback], limit_val_batches=0).fit(toy_module(), toy_data())
    best, last = (load_file(tmp_path / name / "model.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in last)


@pytest.mark.parametrize("limit", [{"max_epochs": 1}, {"max_epochs": 2, "max_steps": 6}])
def test_a_run_that_goes_on_from_its_very_end_leaves_what_it_lacks(
    tmp_path: Path, limit: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a disk that was full when the last epoch's best checkpoint was written and the last one was not."""
    best = BestCheckpoint(tmp_path / "checkpoints", None, "max", tmp_path / "model" / "best")
    options: dict[str, Any] = {**limit, "enable_checkpointing": True}
    module = toy_module()
    toy_trainer(tmp_path, callbacks=[best], **options).fit(module, toy_data())
    files = [
        HuggingFaceCheckpoint(tmp_path / "model", world_tokenizer(), monitor=None),
        LastCheckpoint(tmp_path / "checkpoints"),
    ]
    again = toy_trainer(tmp_path, callbacks=files, **options)
    again.fit(toy_module(seed=1), toy_data(), ckpt_path=tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    for name in ("best", "last"):
        written = load_file(tmp_path / "model" / name / "model.safetensors")
        assert torch.equal(written["score.weight"], module.model.backbone.score.weight)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert read_checkpoint(last)["global_step"] == again.global_step == 6
    written = last.read_bytes()
    monkeypatch.chdir(tmp_path)  # a run's folder is relative where it is resumed by itself
    once_more = toy_trainer(tmp_path, callbacks=[LastCheckpoint("checkpoints")], **options)
    once_more.fit(toy_module(), toy_data(), ckpt_path="checkpoints/last.ckpt", weights_only=True)
    assert last.read_bytes() == written


BY = (("val/nll", "min"), ("val/nll", "max"), ("val/accuracy", "min"))


class DivergedRM(BaselineRM):
    """Its rewards are NaN in the validations of some epochs."""

    def __init__(self, epochs: set[int], **options: Any) -> None:
        super().__init__(toy_model(), partial(torch.optim.AdamW, lr=1e-2), **options)
        self.epochs = epochs

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        output = super().forward(batch)
        diverged = not self.training and self.current_epoch in self.epochs
        return dataclasses.replace(output, reward=output.reward * float("nan")) if diverged else output


@pytest.mark.parametrize(("monitor", "mode"), [("val/nll", "min"), ("val/accuracy", "max")])
@pytest.mark.parametrize("diverged", [{0}, {0, 1}, {1}, {0, 1, 2}])
def test_nan_is_the_worst_value_and_where_there_is_no_other_the_last_is_taken(
    tmp_path: Path, diverged: set[int], monitor: str, mode: str
) -> None:
    ours = HuggingFaceCheckpoint(tmp_path / "model", world_tokenizer(), monitor, mode)
    other = BestCheckpoint(tmp_path / "checkpoints", monitor, mode, exported=tmp_path / "model" / "best")
    lightnings = ModelCheckpoint(tmp_path / "lightning", "best", monitor=monitor, mode=mode)
    trainer = toy_trainer(tmp_path, max_epochs=3, callbacks=[ours, other, lightnings], enable_checkpointing=True)
    trainer.fit(module := DivergedRM(diverged), toy_data())
    assert lightnings.best_model_score is not None
    assert ours.best == float(lightnings.best_model_score)
    assert np.isfinite(ours.best) == (not other.never_known) == (len(diverged) < 3)
    expected = torch.load(other.best_model_path, weights_only=True)["state_dict"]["model.backbone.score.weight"]
    if other.never_known:
        assert torch.equal(module.model.backbone.score.weight, expected)
    else:
        theirs = torch.load(lightnings.best_model_path, weights_only=True)["state_dict"]
        assert torch.equal(theirs["model.backbone.score.weight"], expected)
    assert torch.equal(load_file(tmp_path / "model" / "best" / "model.safetensors")["score.weight"], expected)


def test_weights_whose_saving_was_interrupted_are_not_taken_for_saved(tmp_path: Path) -> None:
    class Interrupted(HuggingFaceCheckpoint):
        def _save(self, pl_module: L.LightningModule, name: str) -> None:
            if pl_module.current_epoch == 1:
                raise KeyboardInterrupt
            super()._save(pl_module, name)

    callback = Interrupted(tmp_path, world_tokenizer(), monitor="train_epoch/num_pairs")
    trainer = toy_trainer(tmp_path, max_epochs=2, callbacks=[callback])
    module = toy_module()
    scores = iter([0.25, 0.75])
    callback.monitor = "val/score"
    module.on_validation_epoch_end = lambda: module.log("val/score", next(scores))
    with pytest.raises(SystemExit):
        trainer.fit(module, toy_data())
    assert callback.state_dict()["best"] == 0.25


def test_a_run_that_goes_on_by_another_metric_begins_its_best_anew(tmp_path: Path) -> None:
    """As its best checkpoint does: an accuracy of .5 is an NLL that no validation of a run may come below."""
    (tmp_path / "best").mkdir()
    states: list[Any] = [{"best": 0.5}]  # of before they said of what
    states += [HuggingFaceCheckpoint(tmp_path, world_tokenizer(), *by).state_dict() | {"best": 0.5} for by in BY]
    found: list[float | None] = []
    for state in states:
        callback = HuggingFaceCheckpoint(tmp_path, world_tokenizer(), "val/nll", "min")
        callback.load_state_dict(state)
        found.append(callback.best)
    assert found == [0.5, 0.5, None, None]
