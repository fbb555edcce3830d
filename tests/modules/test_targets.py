"""Which targets each method reads: a treatment that makes others is refused by name, and the data's own are named."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.member_settings import Members
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.odin import OdinRM
from lightning_rm.modules.ordinal import OrdinalRM
from lightning_rm.modules.regression import RegressionRM
from lightning_rm.modules.response_rank import ResponseRankRM
from lightning_rm.modules.robust import RobustRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.supervised import SupervisedLM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.strength import (
    Target,
    Targets,
    Treatment,
    adaptive_margin,
    changed,
    flip,
    label_smoothing,
    levels,
    noise_corrected,
    prefix,
    soft_label,
    weight,
)
from tests.float64 import assert_same
from tests.toy import toy_model

ADAMW = partial(torch.optim.AdamW, lr=5e-3)
SIDE: Target = "label"
SURE: Target = "soft label"
MARGIN: Target = "margin"
WEIGHT: Target = "weight"
LEVEL: Target = "level"

TREATMENTS: dict[str, tuple[Treatment, set[Target]]] = {
    "flip": (partial(flip, below_quantile=0.5), {SIDE}),
    "label_smoothing": (label_smoothing, {SURE}),
    "soft_label": (soft_label, {SURE}),
    "noise_corrected": (partial(noise_corrected, error=0.2), {SURE}),
    "adaptive_margin": (adaptive_margin, {MARGIN}),
    "weight": (weight, {WEIGHT}),
    "levels": (levels, {LEVEL}),
    "prefix": (partial(prefix, share=0.5), set()),
}

RANKING: set[Target] = {SIDE, SURE, MARGIN, WEIGHT}
METHODS: dict[str, tuple[Callable[..., PairwiseRM], set[Target]]] = {
    "baseline": (BaselineRM, {SIDE, SURE, WEIGHT}),
    "baseline with margins": (partial(BaselineRM, margin_scale=1.0), RANKING),
    "plackett_luce": (partial(BaselineRM, list_loss="plackett_luce"), {WEIGHT}),
    "strength_aware": (StrengthAwareRM, RANKING),
    "contrastive": (partial(ContrastiveRM, contrast=SimCSE), RANKING),
    "meta": (MetaRM, RANKING),
    "robust": (RobustRM, RANKING),
    "odin": (OdinRM, RANKING),
    "ordinal": (OrdinalRM, {LEVEL, WEIGHT}),
    "response_rank": (ResponseRankRM, {SIDE, WEIGHT}),
    "voters": (VotersRM, {SIDE, SURE, WEIGHT}),
    "regression": (RegressionRM, {WEIGHT}),
    "supervised": (SupervisedLM, set()),
}


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return toy_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def opened(folder: Path, *treatments: Treatment, train: Any = None) -> PreferenceDataModule:
    source = train or SyntheticSource(16, levels=3)
    data = PreferenceDataModule(world_tokenizer(), train=source, cache_dir=folder, treatments=list(treatments))
    data.setup("fit")
    return data


def made(method: str, model: RewardModel) -> PairwiseRM:
    of_members = method == "voters"
    return METHODS[method][0](MemberRewardModel.of(model, Members(2)) if of_members else model, ADAMW)


@pytest.mark.parametrize("name", list(TREATMENTS))
def test_what_a_treatment_makes_is_known(folder: Path, name: str) -> None:
    treatment, targets = TREATMENTS[name]
    pairs = opened(folder, treatment).train_pairs()
    assert pairs is not None
    assert pairs.changed == {target: [f"1. {name}"] for target in targets}


@pytest.mark.parametrize("method", list(METHODS))
def test_a_treatment_that_a_method_does_not_read_is_refused(folder: Path, model: RewardModel, method: str) -> None:
    module = made(method, model)
    assert module.reads == METHODS[method][1]
    for name, (treatment, targets) in TREATMENTS.items():
        pairs = opened(folder, treatment).train_pairs()
        assert pairs is not None
        refusal = ""
        try:
            PairwiseRM.check_pairs(module, pairs)
        except ValueError as error:
            refusal = str(error)
        unread = sorted(targets - METHODS[method][1])
        assert bool(refusal) == bool(unread), name
        if unread:
            assert f"treatment=1. {name} gives pairs a {unread[0]} of their own" in refusal
            assert type(module).__name__ in refusal


@pytest.mark.parametrize("method", [method for method, (_, reads) in METHODS.items() if WEIGHT in reads])
def test_a_pair_that_weighs_nothing_teaches_nothing(folder: Path, method: str) -> None:
    """The method's main part of the loss is linear in weights, whatever pairs they are of; so is its gradient."""
    data = opened(folder, levels)
    batch = next(iter(data.train_dataloader()))
    module = made(method, toy_model(dtype="float64")).eval()
    output = module(batch)
    part = next(name for name in ("ranking", "ordinal", "mse") if name in module.losses(batch, output))
    if part == "mse":
        batch = replace(batch, scores=batch.strength.repeat(2, 1)[..., None])

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return module.losses(replace(batch, weight=weight.double()), output)[part].detach()

    torch.manual_seed(0)
    first, second = torch.rand(2, batch.num_pairs, dtype=torch.float64)
    assert_same(loss(first + 2 * second), loss(first) + 2 * loss(second))
    assert loss(first) != loss(second)
    assert loss(torch.zeros(batch.num_pairs)) == 0


def test_only_what_is_left_out_by_no_other_treatment_counts(folder: Path, model: RewardModel) -> None:
    """A flip of the weaker half, which is not trained on, changes nothing."""
    half = partial(prefix, share=0.5, end="strong")
    pairs = opened(folder, half, partial(flip, below_quantile=0.5)).train_pairs()
    assert pairs is not None
    assert pairs.changed == {}


def test_a_label_that_is_turned_round_is_as_sure_as_before() -> None:
    before = Targets.of([0.7, 1.0], [0.0, 0.0], [1.0, 1.0])
    after = Targets.of([1 - 0.7, 0.0], [0.0, 0.0], [1.0, 1.0])
    assert changed(before, after) == [SIDE]


@pytest.mark.parametrize(
    ("method", "column", "value", "unread"),
    [
        ("ordinal", "label", 0.8, SURE),
        ("ordinal", "label", 0, None),  # the pair is turned round as it is read, and its strength with it
        ("response_rank", "label", 0.8, SURE),
        ("response_rank", "margin", 2.0, MARGIN),
        ("baseline", "margin", 2.0, MARGIN),
        ("supervised", "weight", 2.0, WEIGHT),
        ("strength_aware", "margin", 2.0, None),
        ("baseline", "label", 0.8, None),
        ("baseline", "label", 1.0, None),
    ],
)
def test_targets_of_the_data_that_a_method_does_not_read_are_counted(
    folder: Path, model: RewardModel, method: str, column: str, value: float, unread: str | None
) -> None:
    rows = [
        {"prompt": "a cat", "chosen": f"red {word}", "rejected": "blue", "strength_mean": 1.0, column: value}
        for word in ("hat", "tree")
    ]
    pairs = opened(folder, train=rows).train_pairs()
    assert pairs is not None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        PairwiseRM.check_pairs(made(method, model), pairs)
    expected = [f"the data gives 2 pairs a {unread} of their own"] if unread else []
    assert [str(one.message).partition(", and")[0] for one in said] == expected
    assert all(f"data.columns={{{column}: null}}" in str(one.message) for one in said)
