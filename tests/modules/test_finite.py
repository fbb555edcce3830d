"""A step that is not finite changes nothing, is named, and ends the run where it is one of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.callbacks import HuggingFaceCheckpoint, ResumeCheckpoint
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.finite import DivergedError, FiniteSteps
from lightning_rm.modules.gradients import tell_optimizer, zero_gradients
from lightning_rm.modules.spikes import GradientSpikes
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM
from tests.toy import toy_data, toy_model, toy_module, toy_trainer, weights

ADAMW = partial(torch.optim.AdamW, lr=1e-2)
TOO_LONG = partial(torch.optim.AdamW, lr=1e38, fused=True)
METHODS: dict[str, Callable[[], PairwiseRM]] = {
    "baseline": lambda: BaselineRM(toy_model(), ADAMW),
    "strength_aware": lambda: StrengthAwareRM(toy_model(), ADAMW),
    "contrastive": lambda: ContrastiveRM(toy_model(), ADAMW, partial(SimCSE), dropout_at="features"),
    "voters": lambda: VotersRM(MemberRewardModel.of(toy_model(), Members(num_members=2)), ADAMW, bootstrap=False),
}


def batches(*bad: int, number: int = 4) -> list[PreferenceBatch]:
    """Micro-batches of four pairs; those of the given numbers have a weight that is infinite."""
    data = toy_data(4 * number, order="random")
    data.setup("fit")
    plain = list(data.train_dataloader())
    infinite = torch.full((4,), float("inf"))
    return [replace(batch, weight=infinite) if place in bad else batch for place, batch in enumerate(plain)]


def fit(module: PairwiseRM, data: Sequence[PreferenceBatch], folder: Path, **options: Any) -> L.Trainer:
    trainer = toy_trainer(folder, log_every_n_steps=1, gradient_clip_val=1.0, **options)
    trainer.fit(module, DataLoader(data, batch_size=None))  # pyright: ignore[reportArgumentType]  # a list is a data set
    return trainer


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_not_finite_changes_nothing_and_is_named(method: str, tmp_path: Path) -> None:
    module, after = METHODS[method](), []

    class Watch(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            after.append(weights(module))

    data = batches(1)
    rows = ", ".join(f"row {row}" for row in data[1].row.tolist())
    with pytest.warns(UserWarning, match=f"optimizer step 1: the loss of {rows} is not finite, and nothing is changed"):
        trainer = fit(module, data, tmp_path, callbacks=[Watch()])
    assert all(torch.equal(after[1][name], value) for name, value in after[0].items())
    assert any(not torch.equal(after[2][name], value) for name, value in after[1].items())
    assert float(trainer.callback_metrics["train/skipped_steps"]) == 1.0
    assert trainer.callback_metrics["train_epoch/num_pairs"] == 12
    assert all(value.isfinite() for name, value in trainer.callback_metrics.items() if name.startswith("train_epoch/"))


def test_pairs_are_named_by_their_ids(tmp_path: Path) -> None:
    class Infinite(BaselineRM):
        def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
            """Infinite at a gradient that is finite: the gradient alone would say nothing."""
            endless = torch.where(batch.row == 3, torch.inf, 0.0).sum()
            return {"loss": super().losses(batch, output)["loss"] + endless}

    data = toy_data(8, order="random")
    data.setup("fit")
    named = data.datasets["train"].text(3).id
    with pytest.warns(UserWarning, match=rf"pair {named}\b.* is not finite"):
        toy_trainer(tmp_path).fit(Infinite(toy_model(), ADAMW), data)


def test_accumulated_micro_batches_are_told_apart(tmp_path: Path) -> None:
    data = batches(3)
    module = METHODS["baseline"]()
    rows = ", ".join(f"row {row}" for row in data[3].row.tolist())
    with pytest.warns(UserWarning, match=f"step 1: the loss of {rows} is not"):
        trainer = fit(module, data, tmp_path, accumulate_grad_batches=2)
    assert float(trainer.callback_metrics["train/skipped_steps"]) == 1.0


@pytest.mark.filterwarnings("ignore:optimizer step.*is not finite")
def test_too_many_in_a_row_end_the_run_with_its_weights_whole_and_saved(tmp_path: Path) -> None:
    module = BaselineRM(toy_model(), ADAMW, max_skipped=3)
    with pytest.raises(DivergedError, match=r"3 optimizer steps in a row.*changed a weight\. Lower the learning rate"):
        fit(module, batches(1, 3, 4, 5, 6, number=8), tmp_path, callbacks=[ResumeCheckpoint(tmp_path / "r.ckpt")])
    saved = torch.load(tmp_path / "r.ckpt", weights_only=True)
    assert (saved["global_step"], saved["skipped_steps"]) == (6, 4)
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    with pytest.raises(ValueError, match="max_skipped=0: give the number of steps"):
        BaselineRM(toy_model(), ADAMW, max_skipped=0)
    with pytest.raises(ValueError, match="head_lr=-1; give 0 or more"):
        BaselineRM(toy_model(), ADAMW, head_lr=-1)


@pytest.mark.filterwarnings("ignore:optimizer step.*is not finite", "ignore:.*dataloader is not resumable.*")
def test_a_resumed_run_counts_on_and_one_that_was_ended_begins_anew(tmp_path: Path) -> None:
    """None of twelve steps is finite; the bound is five: stopped after three, ended after two more, and five more."""

    class StopBefore(L.Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step == 3:
                raise KeyboardInterrupt

    data, path = batches(*range(12), number=12), tmp_path / "r.ckpt"

    def run(resume: Path | None, *callbacks: L.Callback) -> int:
        trainer = toy_trainer(tmp_path, log_every_n_steps=1, callbacks=[ResumeCheckpoint(path), *callbacks])
        loader: Any = DataLoader(data, batch_size=None)  # pyright: ignore[reportArgumentType]  # as above
        trainer.fit(BaselineRM(toy_model(), ADAMW, max_skipped=5), loader, ckpt_path=resume, weights_only=True)
        return trainer.global_step

    with pytest.raises(SystemExit):
        run(None, StopBefore())
    for step in (5, 10):
        with pytest.raises(DivergedError, match="5 optimizer steps in a row"):
            run(path)
        assert torch.load(path, weights_only=True)["global_step"] == step
    assert run(path) == 12


@pytest.mark.filterwarnings("ignore:optimizer step.*is not finite", "ignore:Checkpoint directory.*exists")
@pytest.mark.parametrize("every", [1, 5])
def test_weights_that_are_not_finite_are_neither_saved_nor_exported(every: int, tmp_path: Path) -> None:
    """The gradients of the first step are finite, and its rate is not one to survive."""
    toy_trainer(tmp_path).fit(good := toy_module(), toy_data())
    checkpoint = tmp_path / "resume.ckpt"
    callbacks = [
        ResumeCheckpoint(checkpoint, every),
        HuggingFaceCheckpoint(tmp_path / "model", world_tokenizer()),
        ModelCheckpoint(tmp_path, "best", monitor="val/accuracy", mode="max", save_last=True),
    ]
    good.export(tmp_path / "model" / "best", world_tokenizer())
    before = load_file(tmp_path / "model" / "best" / "model.safetensors")
    checkpoint.write_bytes(b"the last good one")
    module = BaselineRM(toy_model(), TOO_LONG)
    with pytest.raises(DivergedError, match="weights are not finite"):
        toy_trainer(tmp_path, max_epochs=3, callbacks=callbacks, enable_checkpointing=True).fit(module, toy_data())
    assert checkpoint.read_bytes() == b"the last good one"
    after = load_file(tmp_path / "model" / "best" / "model.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "resume.ckpt"]


def test_one_step_too_long_is_noticed_though_no_loss_follows(tmp_path: Path) -> None:
    export = HuggingFaceCheckpoint(tmp_path / "model", world_tokenizer(), monitor=None)
    trainer = toy_trainer(tmp_path, max_steps=1, limit_val_batches=0, callbacks=[export])
    with pytest.raises(DivergedError, match="after 1 optimizer step weights are not finite"):
        trainer.fit(BaselineRM(toy_model(), TOO_LONG), toy_data())
    assert not (tmp_path / "model").exists()


def test_a_fused_optimizer_is_told_and_another_gets_no_gradient() -> None:
    """As on a GPU, where nobody reads the flag."""
    parameter = torch.nn.Parameter(torch.ones(3))
    fused = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    for gradient in (1.0, torch.nan, 2.0):
        before = parameter.detach().clone()
        parameter.grad = torch.full((3,), gradient)
        tell_optimizer(fused, parameter.grad.isfinite().all())
        fused.step()
        assert torch.equal(parameter, before) == (gradient != gradient)
    assert fused.state[parameter]["step"] == 2
    parameter.grad = torch.tensor([1.0, torch.nan, torch.inf])
    zero_gradients([parameter], torch.tensor(False))
    assert parameter.grad.tolist() == [0.0, 0.0, 0.0]
    parameter.grad = torch.ones(3)
    zero_gradients([parameter], torch.tensor(True))
    assert parameter.grad.tolist() == [1.0, 1.0, 1.0]


def test_gradients_that_are_scaled_are_left_to_their_scaler() -> None:
    """An overflow is not a fault of the run there; a loss that is not finite is."""
    steps = FiniteSteps(3, GradientSpikes(None))
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter])
    for loss in (1.0, torch.nan):
        steps.guard(torch.tensor(loss), torch.tensor([7, -1]))
        parameter.grad = torch.tensor([torch.inf])
        assert steps.end_step(0, optimizer, scaled=True) is None
        assert parameter.grad is not None
    assert [step.rows for step in steps.read()] == [[7]]
