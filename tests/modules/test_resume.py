"""A run that stops and goes on is the run that never stopped, bit for bit: losses, weights, dropout included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_rm.callbacks import InterruptCheckpoint
from tests.toy import LossRecorder, toy_data, toy_module, toy_trainer, weights

DROPOUT = {"attention_dropout": 0.1}


def run(
    folder: Path, resume: Path | None = None, num_workers: int = 0, **options: Any
) -> tuple[list[float], L.LightningModule]:
    L.seed_everything(1 if resume is None else 999, verbose=False)
    recorder = LossRecorder()
    callbacks = [recorder, *options.pop("callbacks", [])]
    module = toy_module(config=DROPOUT)
    trainer = toy_trainer(folder, callbacks=callbacks, **options)
    trainer.fit(module, toy_data(num_workers=num_workers), ckpt_path=resume, weights_only=True)
    return recorder.losses, module


@pytest.mark.parametrize(("every", "num_workers", "accumulate"), [(6, 0, 1), (4, 0, 1), (4, 2, 1), (2, 0, 2)])
def test_resume_is_bit_exact(tmp_path: Path, every: int, num_workers: int, accumulate: int) -> None:
    """Six micro-batches an epoch: stopped after 6 (the epoch's end) and after 4 (inside it)."""
    options: dict[str, Any] = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    whole, finished = run(tmp_path / "whole", **options)
    checkpoint = ModelCheckpoint(
        tmp_path / "ckpt", filename="{step}", every_n_train_steps=every, save_top_k=-1, save_on_train_epoch_end=False
    )
    first, _ = run(tmp_path / "first", callbacks=[checkpoint], enable_checkpointing=True, max_steps=every, **options)
    stopped = tmp_path / "ckpt" / f"step={every}.ckpt"
    rest, resumed = run(tmp_path / "rest", resume=stopped, num_workers=num_workers, **options)
    assert len(whole) == 12
    assert first + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


class Interrupt(L.Callback):
    """Ctrl-C before the micro-batch of a given number."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.at:
            raise KeyboardInterrupt


def test_a_run_goes_on_after_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, finished = run(tmp_path / "whole")
    stopped = tmp_path / "interrupted.ckpt"
    recorder = LossRecorder()
    L.seed_everything(1, verbose=False)
    trainer = toy_trainer(tmp_path / "first", callbacks=[recorder, Interrupt(4), InterruptCheckpoint(stopped)])
    with pytest.raises(SystemExit):
        trainer.fit(toy_module(config=DROPOUT), toy_data())
    assert f"interrupted after 4 steps; go on with 'resume=\"{stopped}\"'" in capsys.readouterr().out
    rest, resumed = run(tmp_path / "rest", resume=stopped)
    assert recorder.losses + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
