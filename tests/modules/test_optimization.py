from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_rm.modules.optimization import parameter_groups, warmup_schedule


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
    assert rates == pytest.approx(expected)


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
    assert (rates[0], rates[length], rates[4 * length]) == pytest.approx((0, 1, 0.5))


def test_a_schedule_that_ends_needs_a_planned_end() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    for name in ("linear", "cosine", "polynomial"):
        with pytest.raises(
            ValueError, match=rf"scheduler={name}.*trainer\.max_epochs or trainer\.max_steps.*inverse_sqrt"
        ):
            warmup_schedule(optimizer, None, name)
