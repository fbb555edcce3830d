"""A metric of training that a callback goes by and nobody logs ends the run at its first log."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch

from lightning_rm.callbacks import MonitoredInTraining

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
