"""Positions that are scaled by length: each sequence's by its own, whatever stands beside it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rm.batch import LayoutName, Sample, TokenBatch
from lightning_rm.data.batches.layouts import layout_of, packed, padded, shared_prefix
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.longrope import long_tokens
from lightning_rm.models.backbone.positions import steady_tokens
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same
from tests.tiny import PAD, conversation, gradients, tiny_model

LIMIT = 20
SCALING: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [4.0, 3.0, 2.0, 5.0],
}
CHANGES: dict[str, Any] = {"original_max_position_embeddings": LIMIT, "rope_parameters": SCALING}
LAYOUTS: tuple[LayoutName, ...] = ("padded", "packed", "shared_prefix")
WEIGHT = torch.tensor([[1.0, -0.5, 2.0], [0.3, 1.5, -1.0]])


def longrope(**options: Any) -> RewardModel:
    return tiny_model("phi3", changes=CHANGES, **options)


def samples() -> list[Sample]:
    """One prompt with responses up to the limit and over it, two over it, two below; one begins as another ends."""
    prompt, other = conversation(14, 1)[:-1], conversation(30, 2)
    ends = [[*prompt, *conversation(length, 3 + length)] for length in (7, 8, 20, 3)]
    assert [len(one) for one in ends] == [LIMIT, LIMIT + 1, LIMIT + 13, 16]
    return [Sample(ends[:2], 13), Sample([ends[2], other], 13), Sample([ends[3], other[:18]], 13)]


def laid(model: RewardModel, layout: LayoutName) -> TokenBatch:
    return layout_of(layout, model.steady_tokens)(samples(), "last", PAD)


def alone(model: RewardModel) -> Tensor:
    """(k, P): transformers' own forward on each sequence by itself."""
    rows = [
        torch.stack([model.backbone(input_ids=torch.tensor([ids])).logits[0, 0] for ids in one.sequences])
        for one in samples()
    ]
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rewards_and_gradients_are_those_of_each_alone(layout: LayoutName, gradient_checkpointing: bool) -> None:
    model = longrope(gradient_checkpointing=gradient_checkpointing)
    assert model.steady_tokens == model.reading.steady_tokens == LIMIT
    (alone(model) * WEIGHT).sum().backward()
    slopes, expected = gradients(model), alone(model).detach()
    model.zero_grad()
    model.train(gradient_checkpointing)
    reward = model(laid(model, layout)).reward
    assert_same(reward, expected)
    (reward * WEIGHT).sum().backward()
    for name, slope in gradients(model).items():
        assert_same(slope, slopes[name])
    model.backbone.set_attn_implementation("eager")
    assert_same(model(laid(model, layout)).reward, expected)


def test_a_batch_of_one_kind_has_its_factors() -> None:
    """The two kinds differ: what was computed by the batch was off by 5e-4."""
    model = longrope()
    expected = alone(model)
    for one, place in zip(samples()[1:], (1, 2), strict=True):
        assert_same(model(padded([one], "last", PAD)).reward[:, 0], expected[:, place])
    whole = model(padded(samples(), "last", PAD)).reward
    assert_same(whole, expected)
    by_batch = model.backbone(laid(model, "padded").input_ids, laid(model, "padded").mask.long()).logits
    assert float((by_batch[0, 0] - expected[0, 0]).detach().abs()) > 1e-4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_adapters_and_members_have_it_too(layout: LayoutName) -> None:
    model = longrope(lora=LoraAdapter(rank=2))
    assert_same(copy.deepcopy(model)(laid(model, layout)).reward, alone(model))
    members = MemberRewardModel.of(longrope(), Members(num_members=2, lora_layers=1, rank=2)).eval()
    for member in range(2):
        assert_same(members(laid(members, layout)).reward[:, member], alone(members.member(member).eval()))


def test_which_tokens_are_of_long_sequences() -> None:
    """Of [1 2 3 | 4 5 | 6], [7 8], longer than four: the beginning and its first end; rows as their masks say."""
    three = [Sample([[1, 2, 3, 4, 5]]), Sample([[7, 8]])]
    assert long_tokens(padded(three, "last", 0), 4).tolist() == [[True] * 5, [False] * 5]
    assert long_tokens(packed(three, "last", 0), 4).tolist() == [[True] * 5 + [False] * 2]
    assert not long_tokens(packed(three, "last", 0), 5).any()


def test_a_beginning_that_two_kinds_share_is_an_error_or_laid_out_twice() -> None:
    """Unless the layout is told: of a prompt with both kinds it stands there once for each."""
    model = longrope()
    apart = laid(model, "shared_prefix")
    twice = 13 + 18  # the prompt, and a sequence that the longest but one begins with
    assert apart.num_tokens == shared_prefix(samples(), "last", PAD).num_tokens + twice
    for batch in (samples(), [samples()[2], samples()[1]], samples()[:1]):
        with pytest.raises(
            ValueError, match=r"a sequence of over 20 tokens begins as a shorter one.* reading=model\.reading"
        ):
            model(shared_prefix(batch, "last", PAD))
    assert steady_tokens(tiny_model("llama", dtype="float32").backbone.config) is None
