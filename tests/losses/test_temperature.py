from __future__ import annotations

import math

import pytest
import torch

from lightning_rm.losses.temperature import LIMITS, fit_temperature, is_limit, tempered_nll, why_none
from tests.float64 import same

MARGIN = torch.tensor([2, 1, 0.5, -0.5, 3, -1], dtype=torch.float64)


def test_the_worked_temperature() -> None:
    """Six pairs of which two are wrong: T = 1.1596 lowers the NLL from .5417 to .5393."""
    ones = torch.ones(6)
    found = fit_temperature(MARGIN, ones)
    assert found == pytest.approx(1.1596, abs=5e-5)
    assert tempered_nll(MARGIN, ones, 1.0) == pytest.approx(0.5417, abs=5e-5)
    assert tempered_nll(MARGIN, ones, found) == pytest.approx(0.5393, abs=5e-5)


def test_it_is_the_least_of_a_grid_of_soft_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    margin, label = 3 * torch.randn(200, generator=generator), torch.rand(200, generator=generator).round(decimals=1)
    found = fit_temperature(margin, label)
    grid = [found * math.exp(step / 50) for step in range(-100, 101)]
    least = min(tempered_nll(margin, label, temperature) for temperature in grid)
    assert tempered_nll(margin, label, found) == pytest.approx(least, abs=1e-9)


def test_scale_is_all_that_it_removes() -> None:
    label = torch.tensor([1, 1, 0, 1, 1, 0.0])
    assert fit_temperature(7 * MARGIN, label) == same(7 * fit_temperature(MARGIN, label))


@pytest.mark.parametrize(("sign", "limit"), [(1, LIMITS[0]), (-1, LIMITS[1]), (0, LIMITS[0])])
def test_where_there_is_no_minimum_it_is_a_limit(sign: int, limit: float) -> None:
    """Margins that are all right, all wrong, or all zero."""
    assert fit_temperature(sign * MARGIN.abs(), torch.ones(6)) == pytest.approx(limit, rel=1e-9)


@pytest.mark.parametrize("margin", [[], [1.0, math.nan], [math.inf]])
def test_no_pairs_and_no_numbers_are_refused(margin: list[float]) -> None:
    with pytest.raises(ValueError, match="no temperature of"):
        fit_temperature(torch.tensor(margin), torch.ones(len(margin)))


@pytest.mark.parametrize(
    ("margins", "labels", "why"),
    [
        ([1.0, 2.0], [1.0, 1.0], "all right"),
        ([-1.0, 2.0], [0.0, 1.0], "all right"),
        ([-3.0, 1.0], [1.0, 1.0], "no better than chance"),
        ([0.0, 0.0], [1.0, 1.0], "no better than chance"),
        ([0.0, 0.0], [0.5, 0.5], "no better than chance"),
        ([-1e6, 3e6], [1.0, 1.0], "on a scale too far from 1"),
        ([-1e-6, 3e-6], [1.0, 1.0], "on a scale too far from 1"),
    ],
)
def test_why_margins_have_no_temperature(margins: list[float], labels: list[float], why: str) -> None:
    """Those of the last two have one, which is beyond the limits."""
    margin, label = torch.tensor(margins), torch.tensor(labels)
    assert is_limit(fit_temperature(margin, label))
    assert why_none(margin, label) == why
