"""Where Lightning keeps an average of the weights, what is exported and benchmarks measure is what it validates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from safetensors.torch import load_file
from torch import Tensor

from lightning_rm.callbacks import Benchmarks, BestCheckpoint, HuggingFaceCheckpoint, LastCheckpoint
from lightning_rm.callbacks.averages import check_averages
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.sharding import FSDP2Strategy
from tests.toy import toy_data, toy_module, toy_trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model:UserWarning")
HEAD = "model.backbone.score.weight"


class Averages(L.Callback):
    """The average after each step: half of it the one before, half the weights as they are trained."""

    def __init__(self) -> None:
        self.heads: list[Tensor] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        head = weights(pl_module)[HEAD]
        self.heads.append((self.heads[-1] + head) / 2 if self.heads else head)


class Watched(Benchmarks):
    """The step of each measurement, and the head that it was made with."""

    def __init__(self) -> None:
        self.every_n_steps, self._last_step = 4, 0
        self.found: list[tuple[int, Tensor]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None: ...

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        self.found.append((trainer.global_step, weights(pl_module)[HEAD]))
        return {}


@pytest.mark.parametrize("last", [False, True])
def test_the_average_is_exported_and_measured_wherever_its_callback_stands(tmp_path: Path, last: bool) -> None:
    """As it is in the checkpoints. Six steps an epoch, each with a validation at its end."""
    files = HuggingFaceCheckpoint(tmp_path, world_tokenizer(), "val/nll", "min")
    best = BestCheckpoint(tmp_path / "checkpoints", "val/nll", "min", tmp_path / "best")
    callbacks = [expected := Averages(), files, watched := Watched(), best, LastCheckpoint(tmp_path / "checkpoints")]
    callbacks.insert(len(callbacks) if last else 0, EMAWeightAveraging(decay=0.5))
    trainer = toy_trainer(tmp_path, max_epochs=2, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(toy_module(lr=3e-2), toy_data(num_val=15))
    assert [step for step, _ in watched.found] == [4, 6, 8, 12, 12]
    for at_a_step, (step, head) in zip((True, False, True, True, False), watched.found, strict=True):
        behind = at_a_step and last  # the step's weights are not in the average yet
        assert torch.allclose(head, expected.heads[step - 1 - behind], atol=1e-6)
    for name in ("best", "last"):
        kept = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=False)
        exported = load_file(tmp_path / name / "model.safetensors")["score.weight"]
        assert torch.equal(exported, kept["state_dict"][HEAD])
        assert torch.allclose(exported, expected.heads[kept["global_step"] - 1], atol=1e-6)
        assert (exported - kept["current_model_state"][HEAD]).abs().max() > 1e-3


def test_an_average_that_no_validation_measures_is_refused(tmp_path: Path) -> None:
    """Lightning's older callback makes it at the end of a run; and neither copies weights that are sharded."""
    at_the_end = StochasticWeightAveraging(swa_lrs=1e-3)
    callbacks = [at_the_end, HuggingFaceCheckpoint(tmp_path, world_tokenizer())]
    with pytest.raises(ValueError, match=r"after the last validation.*EMAWeightAveraging"):
        toy_trainer(tmp_path, callbacks=callbacks).fit(toy_module(), toy_data())
    with pytest.raises(ValueError, match="these are sharded"):
        check_averages([EMAWeightAveraging()], FSDP2Strategy())
