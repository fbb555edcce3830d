"""The reward model of CONTRIBUTING.md trains as it stands there, built from its yaml."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.modules.base import PairwiseRM
from tests.float64 import same
from tests.toy import LossRecorder, toy_data, toy_model, toy_trainer

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```(python|yaml)\n(.*?)```", TEXT, flags=re.DOTALL))


def test_the_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight optimizer steps, each on the naive mean of max(0, 1 - margin)."""
    module = ModuleType("lightning_rm.modules.hinge")
    exec(compile(BLOCKS["python"], "CONTRIBUTING.md", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    node: Any = OmegaConf.create(BLOCKS["yaml"])
    node.optimizer = node.scheduler = None
    model: PairwiseRM = instantiate(
        node, model=toy_model(dtype="float64"), optimizer=partial(torch.optim.AdamW, lr=1e-2)
    )
    margins: list[Tensor] = []
    rank = model.losses

    def remembered(batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        margins.append((output.chosen - output.rejected).detach())
        return rank(batch, output)

    monkeypatch.setattr(model, "losses", remembered)
    recorder = LossRecorder()
    data = toy_data(32, cache_dir=tmp_path)
    toy_trainer(tmp_path, callbacks=[recorder], limit_val_batches=0).fit(model, data)
    naive = [sum(max(0.0, 1.0 - margin) for margin in batch.tolist()) / len(batch) for batch in margins]
    assert len(naive) == 8
    assert recorder.losses == same(naive)
