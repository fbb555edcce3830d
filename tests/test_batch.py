"""Batches move whole, are frozen, and come with defaults that mean a plain pair."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from torch import Tensor

import lightning_rm
from lightning_rm.batch import (
    GroupBatch,
    PreferenceBatch,
    ResponseBatch,
    RewardOutput,
    Sample,
    Tensors,
    group_batch,
    preference_batch,
    response_batch,
)
from lightning_rm.data.batches.layouts import packed, padded
from lightning_rm.data.batches.loader import GroupLoader, ResponseLoader
from lightning_rm.data.sources.groups import GroupFile, ResponseFile
from lightning_rm.data.synthetic.policy import SyntheticGroups

SAMPLES = [Sample([[1, 2, 3], [1, 4]], prompt_length=1), Sample([[5, 6], [5, 7]], prompt_length=1)]


def batch(**columns: object) -> PreferenceBatch:
    return preference_batch(padded(SAMPLES, "last", 0), **columns)


def tensors_of(value: Tensors) -> list[Tensor]:
    found = []
    for field in fields(value):
        inner = getattr(value, field.name)
        found += [inner] if isinstance(inner, Tensor) else tensors_of(inner) if isinstance(inner, Tensors) else []
    return found


def test_defaults_are_a_plain_pair() -> None:
    plain = batch()
    assert plain.num_pairs == 2
    assert plain.label.tolist() == [1, 1]
    assert plain.margin.tolist() == [0, 0]
    assert plain.weight.tolist() == [1, 1]
    assert plain.valid.tolist() == [True, True]
    assert plain.row.tolist() == [0, 1]
    assert plain.clean.isnan().all()
    assert plain.gold_margin.isnan().all()
    assert plain.strength.isnan().all()
    assert plain.length.shape == (2, 2)
    assert (plain.subset_names, plain.data_set, plain.scale) == (("all",), "train", 1.0)


def test_a_column_is_overridden_by_name() -> None:
    given = batch(label=torch.tensor([0.5, 0.0]), data_set="val", scale=0.5)
    assert given.label.tolist() == [0.5, 0.0]
    assert given.margin.tolist() == [0, 0]
    assert (given.data_set, given.scale) == ("val", 0.5)


def test_to_reaches_every_tensor_and_keeps_the_rest() -> None:
    moved = batch(scale=0.25, subset_names=("a", "b")).to("meta")
    assert len(tensors_of(moved)) == 21
    assert {tensor.device.type for tensor in tensors_of(moved)} == {"meta"}
    assert (moved.scale, moved.subset_names) == (0.25, ("a", "b"))


def test_to_leaves_the_original_alone() -> None:
    here = batch()
    here.to("meta")
    assert {tensor.device.type for tensor in tensors_of(here)} == {"cpu"}


def test_to_passes_its_arguments_on() -> None:
    output = RewardOutput(reward=torch.ones(2, 3), feature=torch.ones(2, 3, 4))
    assert output.to(torch.float64, non_blocking=True).feature.dtype == torch.float64
    assert output.to("meta").hidden is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_pin_memory_reaches_every_tensor() -> None:
    assert all(tensor.is_pinned() for tensor in tensors_of(batch().pin_memory()))


def test_pin_memory_is_found_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is asked to pin itself, those of the inner token grid too."""
    pinned: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: (pinned.append(id(self)), self)[1])
    whole = batch()
    whole.pin_memory()
    assert pinned == [id(tensor) for tensor in tensors_of(whole)]


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        batch().scale = 2.0


def test_chosen_is_first() -> None:
    output = RewardOutput(reward=torch.tensor([[1.0, 2.0], [3.0, 4.0]]), feature=torch.zeros(2, 2, 1))
    assert output.chosen.tolist() == [1, 2]
    assert output.rejected.tolist() == [3, 4]


def test_an_ensemble_keeps_its_members() -> None:
    output = RewardOutput(reward=torch.arange(12.0).reshape(2, 3, 2), feature=torch.zeros(2, 2, 1))
    assert output.chosen.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_num_tokens_counts_padding() -> None:
    assert padded(SAMPLES, "last", 0).num_tokens == 12
    assert packed(SAMPLES, "last", 0).num_tokens == 9


def test_earlier_names_are_understood() -> None:
    """CHANGELOG: those of groups of responses go on working."""
    assert (ResponseBatch, response_batch) == (GroupBatch, group_batch)
    assert lightning_rm.SyntheticResponses is SyntheticGroups
    assert (ResponseFile, ResponseLoader) == (GroupFile, GroupLoader)
