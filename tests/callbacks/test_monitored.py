"""A metric of training that a callback goes by and nobody logs ends the run at its first log."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lightning_rm.callbacks import MonitoredInTraining
from lightning_rm.callbacks.monitored import stopped_early
from lightning_rm.modules.baseline import BaselineRM
from tests.toy import toy_data, toy_model, toy_trainer

KEY = "callbacks.early_stopping.monitor"


def trainer(**has: Any) -> L.Trainer:
    """What the callback asks a trainer: forty micro-batches an epoch, two a step, a row of metrics every ten steps."""
    counts = {"num_training_batches": 40, "accumulate_grad_batches": 2, "log_every_n_steps": 10}
    checks = {"val_check_batch": 40, "check_val_every_n_epoch": 1, "callback_metrics": {}}
    return cast(L.Trainer, SimpleNamespace(**{**counts, **checks, **has}))


@pytest.mark.parametrize(
    ("has", "told"),
    [
        ({"val_check_batch": 10}, "looked at after 5 steps, and .* logged every 10: set .*log_every_n_steps=5 or less"),
        ({"log_every_n_steps": 0}, "looked at after 20 steps, and .* logged never: set .*=20 or less"),
        ({"val_check_batch": None, "num_training_batches": 4}, "looked at after 2 steps"),
    ],
)
def test_nothing_is_logged_before_it_is_looked_at(has: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MonitoredInTraining({KEY: "train/loss"}).on_train_start(trainer(**has), cast(Any, None))


def test_a_name_that_is_not_logged() -> None:
    callback = MonitoredInTraining({KEY: "train/nope"})
    callback.on_train_start(trainer(val_check_batch=10, check_val_every_n_epoch=2), cast(Any, None))
    callback.on_train_start(trainer(num_training_batches=math.inf, val_check_batch=math.inf), cast(Any, None))
    callback.on_train_batch_start(trainer(callback_metrics={"val/nll": torch.tensor(1.0)}), cast(Any, None), None, 0)
    logged = {"train/loss": torch.tensor(1.0), "train/ranking": torch.tensor(1.0)}
    with pytest.raises(ValueError, match=f"{KEY}=train/nope is not logged; .*: train/loss, train/ranking"):
        callback.on_train_batch_start(trainer(callback_metrics=logged), cast(Any, None), None, 1)
    MonitoredInTraining({KEY: "train/loss"}).on_train_batch_start(
        trainer(callback_metrics=logged), cast(Any, None), None, 1
    )


def test_an_early_stop_is_said_with_its_step(tmp_path: Path) -> None:
    stop = EarlyStopping("train_epoch/accuracy", mode="max", stopping_threshold=-1, check_on_train_epoch_end=True)
    for callbacks, told in (
        ([stop], "stopped early, after step 2: Stopping threshold reached: train_epoch"),
        ([], None),
    ):
        ran = toy_trainer(tmp_path, max_epochs=2, callbacks=callbacks)
        ran.fit(BaselineRM(toy_model(), partial(torch.optim.SGD, lr=0.1)), toy_data(8))
        said = stopped_early(ran)
        assert said is told or str(said).startswith(str(told))
        assert said is None or not said.endswith("stop.")
