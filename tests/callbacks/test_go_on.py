"""A run that an early stop has ended is over when it is resumed, unless it has more patience than before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lightning_rm.callbacks import GoOn, LastCheckpoint, ResumeCheckpoint
from lightning_rm.callbacks.monitored import stopped_early
from tests.toy import LossRecorder, toy_data, toy_module, toy_trainer, weights


def run(folder: Path, patience: int, resume: Path | None = None) -> tuple[list[float], dict[str, Any], L.Trainer]:
    """Two epochs of six steps and a validation every three; what is monitored never changes."""
    stop, recorder = EarlyStopping("val/num_pairs", mode="max", patience=patience), LossRecorder()
    callbacks = [stop, recorder, GoOn(), LastCheckpoint(folder), ResumeCheckpoint(folder / "resume.ckpt")]
    module = toy_module()
    trainer = toy_trainer(folder, max_epochs=2, val_check_interval=3, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(module, toy_data(), ckpt_path=resume, weights_only=True)
    assert stop.patience == patience
    return recorder.losses, weights(module), trainer


@pytest.mark.filterwarnings("ignore:Checkpoint directory.*")
def test_a_run_that_was_stopped_early_goes_on_with_more_patience_alone(tmp_path: Path) -> None:
    """Stopped after the first validation of the second epoch, and killed while it was measured."""
    stopped, at_stop, trainer = run(tmp_path, 2)
    assert (len(stopped), trainer.global_step) == (9, 9)
    told = stopped_early(trainer)
    nothing, again, trainer = run(tmp_path, 2, tmp_path / "last.ckpt")
    assert (nothing, trainer.global_step, stopped_early(trainer)) == ([], 9, told)
    assert all(torch.equal(again[name], value) for name, value in at_stop.items())
    rest, found, trainer = run(tmp_path, 3, tmp_path / "last.ckpt")
    whole, expected, _ = run(tmp_path / "whole", 3)
    assert stopped + rest == whole
    assert all(torch.equal(found[name], value) for name, value in expected.items())
