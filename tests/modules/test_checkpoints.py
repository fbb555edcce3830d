"""A module is made of a checkpoint alone, and gives the rewards of the one that was saved."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_rm.callbacks import PairRecorder
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.checkpoints import describe
from lightning_rm.modules.contrast import SimCSE
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM
from tests.tiny import tiny_model
from tests.toy import toy_data, toy_model, toy_trainer, weights

ADAMW = partial(torch.optim.AdamW, lr=1e-2)


def saved(module: PairwiseRM, folder: Path) -> Path:
    trainer = toy_trainer(folder, max_steps=1, limit_val_batches=0)
    trainer.fit(module, toy_data())
    trainer.save_checkpoint(folder / "a.ckpt")
    return folder / "a.ckpt"


@pytest.mark.parametrize("method", [BaselineRM, StrengthAwareRM])
def test_the_model_is_made_of_the_checkpoint(method: type[PairwiseRM], tmp_path: Path) -> None:
    before = method(toy_model(), ADAMW)
    path = saved(before, tmp_path)
    module = method.load_from_checkpoint(path)
    found, expected = weights(module), weights(before)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert module.model.pad_id == before.model.pad_id
    with pytest.raises(ValueError, match="this module was loaded to predict: to train it on give optimizer= too"):
        toy_trainer(tmp_path, max_steps=1).fit(module, toy_data())


@pytest.mark.parametrize("name", ["bert", "gemma2", "qwen3"])
def test_other_architectures_and_types_too(name: str, tmp_path: Path) -> None:
    before = BaselineRM(tiny_model(name).to(torch.bfloat16), ADAMW)
    torch.save({"state_dict": before.state_dict(), **_said_of(before)}, tmp_path / "a.ckpt")
    after = BaselineRM.load_from_checkpoint(tmp_path / "a.ckpt")
    assert type(after.model.backbone) is type(before.model.backbone)
    found, expected = weights(after), weights(before)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value.to(found[key].dtype)) for key, value in expected.items())
    assert next(after.model.backbone_parameters()).dtype == torch.bfloat16


def _said_of(module: BaselineRM) -> dict[str, Any]:
    return {"backbone": describe(module.model), "pytorch-lightning_version": "2.6.0"}


def test_what_the_checkpoint_alone_is_not_enough_for_is_asked_for(tmp_path: Path) -> None:
    contrast: Any = partial(SimCSE)
    path = saved(ContrastiveRM(toy_model(), ADAMW, contrast, dropout_at="features"), tmp_path)
    with pytest.raises(ValueError, match=r"ContrastiveRM\.load_from_checkpoint needs contrast=\.\.\., as the run"):
        ContrastiveRM.load_from_checkpoint(path)
    assert ContrastiveRM.load_from_checkpoint(path, contrast=contrast, dropout_at="features").model is not None
    path = saved(VotersRM(MemberRewardModel.of(toy_model(), Members(num_members=2)), ADAMW), tmp_path)
    with pytest.raises(ValueError, match=r"cannot be made of them alone .* give model=, .*load_model\(RUN\)"):
        VotersRM.load_from_checkpoint(path)
    adapted = toy_model()
    LoraAdapter(rank=2).put_into(adapted.backbone, adapted.architecture)
    path = saved(BaselineRM(adapted, ADAMW), tmp_path)
    with pytest.raises(ValueError, match="cannot be made of them alone"):
        BaselineRM.load_from_checkpoint(path)
    again = toy_model(1)
    LoraAdapter(rank=2).put_into(again.backbone, again.architecture)
    module = BaselineRM.load_from_checkpoint(path, model=again, optimizer=ADAMW)
    assert all(torch.equal(value, weights(module)[name]) for name, value in torch.load(path)["state_dict"].items())


def test_predict_gives_the_rewards_of_every_pair(tmp_path: Path) -> None:
    """Those that a test records, by the rows of the data set; seven pairs in batches of four."""
    module, data = BaselineRM(toy_model(dtype="float64"), ADAMW), toy_data()
    trainer = toy_trainer(tmp_path, callbacks=[recorder := PairRecorder(tmp_path)])
    records: list[Any] = []
    recorder._write = lambda *arguments: records.extend(PairRecorder._write(recorder, *arguments)) or []  # pyright: ignore
    trainer.test(module, data, verbose=False)
    predicted: Any = toy_trainer(tmp_path).predict(module, data)
    rows = torch.cat([batch["row"] for batch in predicted])
    assert sorted(rows.tolist()) == list(range(7))
    for side in ("chosen", "rejected"):
        rewards = torch.cat([batch[side] for batch in predicted])[rows.argsort()]
        assert rewards.float().tolist() == getattr(records[0], side).tolist()
