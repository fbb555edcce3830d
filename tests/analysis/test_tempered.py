"""NLL after a temperature: by validation pairs, and by halves of the prompts against a loop written out."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

from lightning_rm.analysis.tempered import cross_tempered, tempered
from lightning_rm.losses.temperature import fit_temperature
from tests.analysis.test_by_pair import records
from tests.float64 import same

RNG = np.random.default_rng(11)
PROMPTS = [f"prompt {number}" for number in RNG.integers(20, size=60)]
MARGIN = (3 * RNG.normal(0.4, 1, 60)).tolist()


def nll(margin: list[float], temperature: float = 1.0) -> float:
    return float(np.mean([math.log1p(math.exp(-one / temperature)) for one in margin]))


def test_validation_pairs_give_the_temperature() -> None:
    """Margins 1, 2 and -1: the least mean of log(1 + exp(-m / T)) is at T = 1.32."""
    found = tempered(records(MARGIN, PROMPTS), [records([1, 2], ["a", "b"]), records([-1], ["c"])])
    assert round(found.temperature, 2) == 1.32
    assert [found.nll, found.after] == same([nll(MARGIN), nll(MARGIN, found.temperature)])


def test_without_any_each_half_of_the_prompts_has_that_of_the_other() -> None:
    side = [hashlib.sha1(name.encode()).digest()[0] % 2 for name in PROMPTS]
    halves = [[margin for margin, one in zip(MARGIN, side, strict=True) if one == wanted] for wanted in (0, 1)]
    assert min(map(len, halves)) > 10
    temperatures = [fit_temperature(torch.tensor(half, dtype=torch.float64), torch.ones(len(half))) for half in halves]
    after = sum(nll(half, one) * len(half) for half, one in zip(halves, reversed(temperatures), strict=True)) / 60
    found = cross_tempered(records(MARGIN, PROMPTS))
    assert [found.nll, found.temperature, found.after] == same([nll(MARGIN), sum(temperatures) / 2, after])


def test_ten_times_the_rewards_are_the_same_after_it() -> None:
    once, scaled = (cross_tempered(records([scale * one for one in MARGIN], PROMPTS)) for scale in (1, 10))
    assert abs(scaled.after - once.after) < 1e-9
    assert abs(scaled.temperature / once.temperature - 10) < 1e-9
    assert scaled.nll > once.nll


def test_halves_without_a_temperature_are_told() -> None:
    assert cross_tempered(records([1, 2], ["one", "one"])).lacks == "too few prompts for two halves"
    told = cross_tempered(records([1.0] * 20, [f"prompt {number}" for number in range(20)]))
    assert (told.lacks, math.isnan(told.after), told.nll) == ("all right", True, same(nll([1.0])))
