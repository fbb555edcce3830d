"""Numbers as a user gives them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from lightning_rm.counts import and_others, check_counts, check_numbers, given, number_of, tightest
from lightning_rm.models.ensembles.member_settings import Members
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.finite import FiniteSteps
from lightning_rm.modules.objective import Objective
from lightning_rm.modules.spikes import GradientSpikes
from tests.toy import toy_model


def test_one_thing_is_told_in_the_singular() -> None:
    assert [number_of(count, "voter") for count in (0, 1, 1200)] == ["0 voters", "1 voter", "1,200 voters"]
    assert [and_others(count) for count in (-1, 0, 1, 3)] == ["", "", " and 1 other", " and 3 others"]


def test_a_bound_that_is_none_bounds_nothing() -> None:
    assert [tightest(), tightest(None, None), tightest(None, 0), tightest(8, None, 5)] == [None, None, 0, 5]


@pytest.mark.parametrize("value", ["8", True, 0.5, -1, [1], math.nan, None])
def test_what_is_not_a_count_is_a_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^batch_pairs=.*; give (a whole number, )?1 or more$"):
        check_counts(1, batch_pairs=value)
    check_counts(1, batch_pairs=8, **given(batch_tokens=None))


@pytest.mark.parametrize("value", ["0.1", True, -0.1, [0.1], math.nan, math.inf, None])
def test_what_is_not_a_number_is_a_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^head_lr=.*; give (a number, )?0 or more$"):
        check_numbers(0, head_lr=value)
    check_numbers(0, head_lr=1e-3, **given(reward_penalty=None))


@pytest.mark.parametrize("name", ["num_members", "rank", "lora_layers", "seed", "alpha"])
def test_none_stands_for_a_default_only_where_there_is_one(name: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}=None; give a (whole )?number, "):
        Members(**{name: None})
    assert Members(freeze_layers=None).freeze_layers is None


@pytest.mark.parametrize("value", ["1", math.nan])
def test_a_text_in_place_of_a_number_is_named(value: Any) -> None:
    """A text was a TypeError that named no argument, and a NaN went through every comparison."""
    makers: dict[str, Any] = {
        "num_members": Members,
        "rank": Members,
        "alpha": Members,
        "temperature": lambda **given: SimCSE(4, **given),
        "other_weight": lambda **given: SimCSE(4, **given),
        "epsilon": lambda **given: SwAV(4, **given),
        "queue": lambda **given: SwAV(4, **given),
        "max_skipped": lambda **given: FiniteSteps(spikes=GradientSpikes(None), **given),
        "factor": GradientSpikes,
        "beta": lambda **given: Objective(4, **given),
        "centering": lambda **given: Objective(4, **given),
        "distill": lambda **given: Objective(4, **given),
    }
    for name, make in makers.items():
        with pytest.raises(ValueError, match=rf"^(spike_)?{name}='?{value}"):
            make(**{name: value})
    model = toy_model()
    for name in ("head_lr", "margin_scale", "centering"):
        with pytest.raises(ValueError, match=rf"^{name}='?{value}"):
            BaselineRM(model, partial(torch.optim.AdamW), **{name: value})
