"""An average of weights is the mean of its members' tensors, and an ordinary reward model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import padded
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.warm import average_weights, check_average, weight_cosine
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same, same
from tests.tiny import PAD, conversation, pairs, tiny_model

SEQUENCES = [conversation(6), conversation(11)]


def moved(model: RewardModel, seed: int, by: float = 0.01) -> RewardModel:
    """The model after what training would do to it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model


def tensors(model: RewardModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "bert", "roberta"])
def test_the_average_of_copies_is_the_model_bit_for_bit(name: str, dtype: str) -> None:
    members = [tiny_model(name, dtype=dtype) for _ in range(7)]
    expected, found = tensors(members[0]), tensors(average_weights(members))
    assert expected.keys() == found.keys()
    assert all(found[key].dtype == expected[key].dtype for key in expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_average_is_the_mean_of_tensors_and_leaves_members_alone() -> None:
    members = [moved(tiny_model(), 1), moved(tiny_model(), 2), moved(tiny_model(), 3)]
    before = [tensors(member) for member in members]
    average = average_weights(members)
    assert type(average) is RewardModel
    for key, value in tensors(average).items():
        assert_same(value, torch.stack([state[key] for state in before]).mean(0))
    moved(average, 4)
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in member.state_dict().items())


def test_bfloat16_members_are_summed_in_float32() -> None:
    members = [moved(tiny_model(dtype="bfloat16"), seed) for seed in (1, 2, 3)]
    found = tensors(average_weights(members))
    for key, value in found.items():
        stacked = torch.stack([member.state_dict()[key] for member in members])
        torch.testing.assert_close(value, stacked.float().mean(0).to(value.dtype), atol=0, rtol=2**-7)
    assert found["backbone.score.weight"].dtype == torch.float32


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_adapters_are_merged_first(name: str, tmp_path: Path) -> None:
    """Each member's merged weights are what its own export holds."""
    members = [moved(tiny_model(name, lora=LoraAdapter(rank=2, seed=seed)), seed) for seed in (0, 1)]
    plain: list[RewardModel] = []
    for number, member in enumerate(members):
        member.save_pretrained(tmp_path / str(number))
        plain.append(RewardModel.from_pretrained(tmp_path / str(number), dtype="float64"))
    found, expected = average_weights(members), average_weights(plain)
    assert all(parameter.requires_grad for parameter in found.parameters())
    assert tensors(found).keys() == tensors(expected).keys()
    for key, value in tensors(found).items():
        assert_same(value, tensors(expected)[key])
    tokens = padded(pairs(), found.read_at, found.pad_id)
    assert_same(found.eval()(tokens).reward, expected.eval()(tokens).reward)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_transformers_reads_the_exported_average(name: str, tmp_path: Path) -> None:
    average = average_weights([moved(tiny_model(name), 1), moved(tiny_model(name), 2)]).eval()
    average.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ours = average(padded([Sample([ids]) for ids in SEQUENCES], average.read_at, PAD)).reward[0]
        theirs = [classifier(input_ids=torch.tensor([ids])).logits[0, 0] for ids in SEQUENCES]
    assert_same(ours, torch.stack(theirs))


def test_the_cosine_tells_one_start_from_several() -> None:
    """Against all pairs one by one; heads of other seeds on one backbone are told apart."""
    members = [moved(tiny_model(), seed, 0.001) for seed in (1, 2, 3)]
    vectors = [
        torch.cat([p.flatten() for p in member.backbone_parameters() if p.ndim > 1]).double() for member in members
    ]
    naive = [torch.cosine_similarity(vectors[i], vectors[j], 0).item() for i, j in ((0, 1), (0, 2), (1, 2))]
    together = weight_cosine(members)
    assert together.backbone == same(sum(naive) / 3)
    assert together.backbone > 0.99 < together.head
    apart = weight_cosine([tiny_model(seed=seed) for seed in (1, 2, 3)])
    assert abs(apart.backbone) < 0.1
    other_head = tiny_model(seed=1)
    other_head.load_state_dict(
        {**tiny_model().state_dict(), "backbone.score.weight": next(other_head.head_parameters())}
    )
    mixed = weight_cosine([tiny_model(), other_head])
    assert mixed.backbone == same(1)
    assert abs(mixed.head) < 0.6


def test_members_may_differ_in_dropout_and_dtype() -> None:
    found = average_weights([tiny_model("bert"), tiny_model("bert", changes={"hidden_dropout_prob": 0.3})])
    assert found.backbone.config.hidden_dropout_prob == 0.1
    assert average_weights([tiny_model(), tiny_model(dtype="bfloat16")]).backbone.dtype == torch.float64


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"name": "qwen3"}, "member 1 has model_type='qwen3' and member 0 has 'llama'"),
        ({"pad_id": 0}, "member 1 has pad_"),
        ({"changes": {"rms_norm_eps": 0.1}}, r"member 1 has rms_norm_eps=0\.1"),
        ({"changes": {"intermediate_size": 24}}, "member 1 has intermediate_size=24"),
    ],
)
def test_what_has_no_average_is_named(other: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        average_weights([tiny_model(), tiny_model(**other)])


def test_a_tensor_of_another_shape_is_named() -> None:
    """A configuration that was changed after its weights were made."""
    other = tiny_model()
    other.backbone.score = torch.nn.Linear(16, 1, bias=False)
    with pytest.raises(ValueError, match=r"member 1 has score\.weight of shape \(1, 16\) and member 0 of \(1, 32\)"):
        average_weights([tiny_model(), other])


def test_members_that_are_not_there_or_not_plain_are_named() -> None:
    with pytest.raises(ValueError, match="member 0 is a RewardEnsemble"):
        average_weights([RewardEnsemble([tiny_model()])])
    with pytest.raises(ValueError, match="at least one reward model"):
        average_weights([])
    with pytest.raises(ValueError, match="there are 1; give at least two"):
        weight_cosine([tiny_model()])


def test_the_check_compares_with_the_members_mean() -> None:
    check = check_average(0.7, [0.6, 0.8, 0.64])
    assert (check.average, check.mean, check.lowest, check.highest) == (0.7, same(0.68), 0.6, 0.8)
    assert check.holds
    assert check_average(0.5, [0.5, 0.5]).holds
    assert not check_average(0.67, [0.6, 0.8, 0.64]).holds
    assert not check_average(math.nan, [0.5]).holds
    with pytest.raises(ValueError, match="member_accuracies is empty"):
        check_average(0.5, [])
