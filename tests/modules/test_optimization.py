from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, ReduceLROnPlateau, StepLR

from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import make_optimizer, make_schedule, parameter_groups, warmup_schedule
from tests.float64 import same
from tests.toy import toy_data, toy_model, toy_trainer, weights


def test_parameter_groups_decay_matrices_alone_and_give_the_head_its_own_rate() -> None:
    backbone, head = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), nn.Linear(4, 1)
    groups = parameter_groups(backbone.parameters(), head.parameters(), head_lr=0.5)
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    seen = {
        group["name"]: ([tuple(p.shape) for p in group["params"]], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    }
    assert seen == {
        "backbone": ([(4, 3)], 0.1, 0.2),
        "backbone_no_decay": ([(4,), (4,), (4,)], 0.1, 0.0),
        "head": ([(1, 4)], 0.5, 0.2),
        "head_no_decay": ([(1,)], 0.5, 0.0),
    }


def test_frozen_parameters_are_in_no_group() -> None:
    backbone, head = nn.Linear(3, 4), nn.Linear(4, 1, bias=False)
    backbone.requires_grad_(False)
    groups = parameter_groups(backbone.parameters(), head.parameters())
    assert [group["name"] for group in groups] == ["head"]


@pytest.mark.parametrize(
    ("name", "warmup", "expected"),
    [
        # Ten steps, two of warm-up: 0, 1/2, then 8 steps down to zero.
        ("linear", 0.2, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("linear", 2, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        # After two steps of warm-up sqrt(2 / step).
        ("inverse_sqrt", 2, [0, 0.5, *[(2 / step) ** 0.5 for step in range(2, 10)]]),
        ("constant_with_warmup", 2, [0, 0.5, *[1.0] * 8]),
    ],
)
def test_schedules(name: str, warmup: float, expected: list[float]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = warmup_schedule(optimizer, 10, name, warmup)
    rates: list[float] = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == same(expected)


def test_warmup_longer_than_the_run_is_an_error() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="warmup=20 is 20 of the run's 10 steps"):
        warmup_schedule(optimizer, 10, warmup=20)


@pytest.mark.parametrize("warmup", [0.1, 30])
def test_inverse_sqrt_needs_no_planned_end(warmup: float) -> None:
    """A share is then of 10,000 steps; the rate is 1 where the warm-up ends and 1/2 after four times as many steps."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = warmup_schedule(optimizer, None, "inverse_sqrt", warmup)
    rates: list[float] = []
    length = 1000 if warmup < 1 else 30
    for _ in range(4 * length + 1):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert (rates[0], rates[length], rates[4 * length]) == same((0, 1, 0.5))


def test_a_schedule_that_ends_needs_a_planned_end() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    for name in ("linear", "cosine", "polynomial"):
        with pytest.raises(
            ValueError, match=rf"scheduler={name}.*trainer\.max_epochs or trainer\.max_steps.*inverse_sqrt"
        ):
            warmup_schedule(optimizer, None, name)


def plain_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (partial(StepLR, step_size=2, gamma=0.5), [1, 1, 0.5, 0.5]),
        (partial(ExponentialLR, gamma=0.5), [1, 0.5, 0.25, 0.125]),
        # Half a cosine over the four steps of the run, and over the two that are asked for.
        (CosineAnnealingLR, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]),
        (partial(CosineAnnealingLR, T_max=2), [1, 0.5, 0, 0.5]),
    ],
)
def test_a_schedule_of_torchs_is_made_of_its_own_options(scheduler: Any, expected: list[float]) -> None:
    made = make_schedule(scheduler, plain_optimizer(), 4)
    schedule: Any = made["scheduler"]
    rates: list[float] = []
    for _ in range(4):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, abs=1e-12)
    assert made["interval"] == "step"


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        (ExponentialLR, "cannot be made of its options: .*missing 1 required positional argument: 'gamma'"),
        (partial(StepLR, size=3), "cannot be made of its options: .*'size'"),
        (partial(ReduceLROnPlateau, patience=1), "ReduceLROnPlateau looks at a metric: .*'monitor': 'val/accuracy'"),
        (lambda *_: None, "scheduler= has made a NoneType of the optimizer"),
    ],
)
def test_what_makes_no_schedule_is_told(scheduler: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_schedule(scheduler, plain_optimizer(), 4)


def test_what_makes_no_optimizer_is_told() -> None:
    with pytest.raises(ValueError, match="optimizer= has made a dict of the parameter groups"):
        make_optimizer(lambda _: {}, parameter_groups([], []), clips_scaled=False)  # pyright: ignore[reportArgumentType]


def test_lightnings_dict_of_a_schedule_says_when_it_is_stepped_and_by_what(tmp_path: Path) -> None:
    """An accuracy that never grows by 10 halves the rate after every epoch of six steps but the first, the best."""

    def plateau(optimizer: torch.optim.Optimizer, _: int | None) -> Any:
        waiting = ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=0, threshold=10, threshold_mode="abs")
        return {"scheduler": waiting, "monitor": "val/accuracy"}

    rates, _ = fitted(tmp_path, 3, scheduler=plateau)
    assert rates.rates == [1e-2] * 12 + [5e-3] * 6


class Rates(L.Callback):
    """The learning rate and the weight decay that each step is taken with."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.decays: list[float] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.decays.append(optimizer.param_groups[0]["weight_decay"])


LINEAR = partial(warmup_schedule, name="linear", warmup=2)


def fitted(
    folder: Path,
    epochs: int,
    resume: Path | None = None,
    scheduler: Callable[..., Any] | None = LINEAR,
    **options: Any,
) -> tuple[Rates, L.Trainer]:
    """Six steps an epoch."""
    rates = Rates()
    optimizer = partial(torch.optim.AdamW, **{"lr": 1e-2, **options})
    trainer = toy_trainer(folder, max_epochs=epochs, callbacks=[rates])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(BaselineRM(toy_model(), optimizer, scheduler), toy_data(), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "end.ckpt")
    return rates, trainer


@pytest.mark.parametrize(
    "scheduler", [LINEAR, lambda optimizer, _: ExponentialLR(optimizer, 0.9), partial(StepLR, step_size=5), None]
)
def test_a_resumed_run_has_the_options_that_it_is_given(tmp_path: Path, scheduler: Callable[..., Any] | None) -> None:
    """Twice the rate of before from the first step on, another decay; the same ones are the same to the last bit."""
    whole, trainer = fitted(tmp_path / "whole", 4, scheduler=scheduler)
    saved = tmp_path / "half.ckpt"

    class Save(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(saved)

    first = toy_trainer(tmp_path, max_epochs=4, callbacks=[Save()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = BaselineRM(toy_model(), partial(torch.optim.AdamW, lr=1e-2), scheduler)
        first.fit(module, toy_data())
    same, resumed = fitted(tmp_path / "same", 4, saved, scheduler)
    assert same.rates == whole.rates[12:]
    expected, found = (weights(run.lightning_module) for run in (trainer, resumed))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    twice, _ = fitted(tmp_path / "twice", 4, saved, scheduler, lr=2e-2, weight_decay=0.5)
    assert twice.rates == pytest.approx([2 * rate for rate in whole.rates[12:]], rel=1e-12)
    assert set(twice.decays) == {0.5}


def test_more_epochs_go_on_at_the_rate_of_the_longer_schedule(tmp_path: Path) -> None:
    """A finished run has come down to 0: no step is taken at that."""
    fitted(tmp_path / "first", 1)
    longer, _ = fitted(tmp_path / "second", 3, tmp_path / "first" / "end.ckpt")
    whole, _ = fitted(tmp_path / "whole", 3)
    assert longer.rates == whole.rates[6:]
    assert min(longer.rates) > 0


def test_a_checkpoint_of_another_optimizer_or_model_is_named(tmp_path: Path) -> None:
    fitted(tmp_path, 1)
    saved = tmp_path / "end.ckpt"

    def refused(model: Any, optimizer: Any = torch.optim.AdamW, head_lr: float | None = None) -> None:
        module = BaselineRM(model, partial(optimizer, lr=1e-2), head_lr=head_lr)
        toy_trainer(tmp_path, max_epochs=2).fit(module, toy_data(), ckpt_path=saved, weights_only=True)

    with pytest.raises(ValueError, match=r"another optimizer: it has options that this one has not \(amsgrad, betas"):
        refused(toy_model(), torch.optim.SGD)
    with pytest.raises(
        ValueError, match=r"of another model: .*has in another shape \(model\.backbone.* Go on with the"
    ):
        refused(toy_model(hidden_size=16))
    adapted = toy_model()
    LoraAdapter(rank=2).put_into(adapted.backbone, adapted.architecture)
    with pytest.raises(ValueError, match=r"base_layer.*\. One of them has adapters \(peft=, or "):
        refused(adapted)
    frozen = toy_model()
    for parameter in frozen.backbone_parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match=r"groups backbone of \d+ tensors, .*, and this run's has head of 1 tensors"):
        refused(frozen)
