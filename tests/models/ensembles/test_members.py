"""M members in one pass are M reward models, each scored by itself; files give them back; counts are a bootstrap's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from transformers import AutoModelForCausalLM

from lightning_rm.batch import TokenBatch
from lightning_rm.data.batches.layouts import LAYOUTS, LayoutName
from lightning_rm.models import probe
from lightning_rm.models.backbone import families
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.folder import MEMBERS_FILE, is_members
from lightning_rm.models.backbone.heads import head_tensors
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.bootstrap import bootstrap_weights
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from tests.families import family_config
from tests.float64 import assert_same
from tests.tiny import CONFIGS, gradients, layouts_of, prompted, tiny_model

NAMES = ["llama", "qwen3", "gpt_neox", "bert", "roberta", "modernbert", "distilbert"]
ADAPTED = [*NAMES, "gpt2", "gemma2", "gemma3_text", "mistral", "electra"]


def members_on(name: str = "llama", changes: dict[str, Any] | None = None, **settings: Any) -> MemberRewardModel:
    """Three members in evaluation mode; where they have adapters, B is no longer zero."""
    model = MemberRewardModel.of(tiny_model(name, changes=changes), Members(**{"num_members": 3, **settings})).eval()
    torch.manual_seed(7)
    for key, value in model.named_parameters():
        if key.startswith("lora."):
            torch.nn.init.normal_(value, std=0.2)
    return model


def laid_out(model: RewardModel, layout: LayoutName = "padded") -> TokenBatch:
    return LAYOUTS[layout](prompted(), model.read_at, model.pad_id)


def by_hand(name: str, model: MemberRewardModel, tokens: TokenBatch) -> Tensor:
    """(k, M, P): a new reward model with the same backbone and one member's head, for each member."""
    rewards: list[Tensor] = []
    for head in model.heads:
        alone = tiny_model(name)
        tensors = head_tensors(alone.backbone, alone.architecture)
        for (_, parameter), value in zip(tensors, head.parameters(), strict=True):
            parameter.data.copy_(value.data)
        rewards.append(alone(tokens).reward)
    return torch.stack(rewards, dim=1)


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_are_separate_models(name: str) -> None:
    model = members_on(name)
    tokens = laid_out(model)
    output = model(tokens)
    assert output.reward.shape == (2, 3, 3)
    assert output.hidden is None
    assert output.feature.shape == (2, 3, 32)
    assert_same(output.reward, by_hand(name, model, tokens))
    assert_same(output.reward[:, 1], model.member(1)(tokens).reward)
    assert (output.reward[:, 0] - output.reward[:, 1]).abs().min() > 1e-5
    if model.architecture.packs:
        assert_same(model(laid_out(model, "packed")).reward, output.reward)


@pytest.mark.parametrize("lora_layers", [1, 2])
@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_are_separate_models(name: str, lora_layers: int) -> None:
    """Windows are shorter than the sequences, rows have different lengths, and one sequence stands in two pairs."""
    model = members_on(name, lora_layers=lora_layers, rank=2)
    for layout in layouts_of(model):
        tokens = laid_out(model, layout)
        output = model(tokens)
        alone = [model.member(member)(tokens) for member in range(3)]
        expected = torch.stack([one.reward for one in alone], dim=1)
        assert_same(output.reward, expected)
        mean = torch.stack([one.feature for one in alone]).mean(0)
        assert_same(output.feature, mean)
    assert (alone[0].feature - alone[1].feature).abs().max() > 1e-3


def test_adapters_with_eager_attention() -> None:
    for layout in LAYOUTS:
        model = MemberRewardModel.of(
            tiny_model("llama", attn_implementation="eager"), Members(num_members=2, lora_layers=1)
        ).eval()
        torch.nn.init.normal_(next(iter(model.lora.by_name().values())).up)
        tokens = laid_out(model, layout)
        assert_same(model(tokens).reward[:, 1], model.member(1)(tokens).reward)


def test_fresh_adapters_change_nothing() -> None:
    model = MemberRewardModel.of(tiny_model("llama"), Members(num_members=2, lora_layers=2)).eval()
    heads = MemberRewardModel.of(tiny_model("llama"), Members(num_members=2)).eval()
    assert_same(model(laid_out(model)).reward, heads(laid_out(heads)).reward)


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for name in ("llama", "bert", "modernbert") for layout in layouts_of(tiny_model(name))],
)
def test_gradients_are_those_of_separate_models(name: str, layout: LayoutName) -> None:
    """Heads: a member's own, and the backbone's is the sum over members. Adapters: a member's own, and no other's."""
    model = members_on(name)
    tokens = laid_out(model, layout)
    output = model(tokens)
    (output.chosen - output.rejected).square().sum().backward()
    total: dict[str, Tensor] = {}
    for member in range(3):
        alone = model.member(member)
        output = alone(tokens)
        (output.chosen - output.rejected).square().sum().backward()
        found = gradients(alone)
        head = [found[f"backbone.{key}"] for key, _ in head_tensors(alone.backbone, alone.architecture)]
        for parameter, expected in zip(model.heads[member].parameters(), head, strict=True):
            assert_same(parameter.grad, expected)
        total = {key: value + total.get(key, 0) for key, value in found.items()}
    trained = {id(value) for value in model.backbone_parameters()}
    for key, value in model.named_parameters():
        if id(value) in trained and value.grad is not None:
            assert_same(value.grad, total[key])


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name in ["llama", "distilbert"] for layout in layouts_of(tiny_model(name))]
)
def test_a_members_loss_reaches_its_own_weights_alone(name: str, layout: LayoutName) -> None:
    model = members_on(name, lora_layers=1, rank=2)
    reward = model(laid_out(model, layout)).reward
    (reward[0, 1] - reward[1, 1]).sum().backward()
    found = {key: value for key, value in gradients(model).items() if value.abs().sum() > 0}
    assert {key.split(".")[0] for key in found} == {"heads", "lora"}
    assert {key.split(".")[1] for key in found if key.startswith("heads")} == {"1"}
    adapters = [value for key, value in found.items() if key.startswith("lora")]
    assert all(value.flatten(1).any(1).tolist() == [False, True, False] for value in adapters)
    assert model.lora is not None
    assert len(adapters) == 2 * len(model.lora.names)


def test_parameters_are_heads_and_backbone() -> None:
    for settings in ({}, {"lora_layers": 1}):
        model = members_on("bert", **settings)
        head, backbone = list(map(id, model.head_parameters())), list(map(id, model.backbone_parameters()))
        assert not set(head) & set(backbone)
        assert len(head) == 3 * 4  # BERT's pooler and classifier
        rest = [key for key, value in model.named_parameters() if id(value) not in {*head, *backbone}]
        assert len(rest) == 4
        assert not any(model.get_parameter(key).requires_grad for key in rest)


@pytest.mark.parametrize("settings", [{"freeze_backbone": True}, {"lora_layers": 1}])
def test_a_frozen_backbone_has_no_gradients(settings: dict[str, Any]) -> None:
    model = members_on("llama", **settings).train()
    model(laid_out(model)).reward.square().sum().backward()
    assert not [key for key, value in model.named_parameters() if key.startswith("backbone") and value.grad is not None]
    assert all(value.grad is not None for value in model.head_parameters())


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "modernbert"])
def test_first_layers_can_be_frozen(name: str) -> None:
    model = members_on(name, freeze_layers=1)
    model(laid_out(model)).reward.square().sum().backward()
    first, second = transformer_layers(model.backbone)
    embeddings = model.backbone.get_input_embeddings()
    assert not any(value.requires_grad for value in (*first.parameters(), *embeddings.parameters()))
    assert all(value.grad is not None for value in second.parameters())


def test_head_dropout_is_active_in_training_and_differs_between_members() -> None:
    changes = {"classifier_dropout": 0.5, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = members_on("roberta", changes)
    for head in model.heads:
        for value, first in zip(head.parameters(), model.heads[0].parameters(), strict=True):
            value.data.copy_(first.data)
    reward = model(laid_out(model)).reward
    assert_same(reward[:, 0], reward[:, 1])
    reward = model.train()(laid_out(model)).reward
    assert (reward[:, 0] - reward[:, 1]).abs().min() > 1e-4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_heads_go_with_gradient_checkpointing(layout: LayoutName) -> None:
    found: list[dict[str, Tensor]] = []
    for checkpointing in (False, True):
        model = MemberRewardModel.of(tiny_model("llama", gradient_checkpointing=checkpointing), Members(num_members=2))
        model(laid_out(model, layout)).reward.square().sum().backward()
        found.append(gradients(model))
    for key, expected in found[0].items():
        assert_same(found[1][key], expected)


def test_members_are_seeded_one_by_one() -> None:
    """A member is the same whatever their number, and the global random state is left alone."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    few, many = (
        MemberRewardModel.of(tiny_model("llama"), Members(num_members=m, lora_layers=1, seed=4)) for m in (2, 5)
    )
    other = MemberRewardModel.of(tiny_model("llama"), Members(num_members=2, lora_layers=1, seed=5))
    assert torch.equal(torch.rand(2), expected)
    downs = [[value.down for value in model.lora.by_name().values()] for model in (few, many, other) if model.lora]
    for first, second, third in zip(*downs, strict=True):
        assert torch.equal(first, second[:2])
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first, third)
    assert torch.equal(next(few.heads[1].parameters()), next(many.heads[1].parameters()))


@pytest.mark.parametrize("settings", [{}, {"lora_layers": 2, "rank": 2}])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "roberta"])
def test_save_and_load(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model = members_on(name, seed=3, **settings)
    tokens = laid_out(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    reward = model(tokens).reward
    model.save_pretrained(tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert is_members(tmp_path)
    assert not list(tmp_path.glob(".draft*"))
    again = MemberRewardModel.load(tmp_path, dtype="float64").eval()
    assert again.members == model.members
    assert_same(again(tokens).reward, reward)
    with safe_open(tmp_path / MEMBERS_FILE, "pt") as file:
        assert json.loads(file.metadata()["members"])["num_members"] == 3
    average = RewardModel.from_pretrained(tmp_path, dtype="float64", average=True).eval()
    if model.read_at == "last" and not settings:
        assert_same(average(tokens).reward, reward.mean(1))
    if settings:
        merged = torch.stack([next(iter(_last_linear(model.member(m)))) for m in range(3)]).mean(0)
        assert_same(next(iter(_last_linear(average))), merged)


def _last_linear(model: RewardModel) -> list[Tensor]:
    return [value.data for value in transformer_layers(model.backbone)[-1].parameters() if value.ndim == 2]


def test_a_member_is_exported_as_one_voter(tmp_path: Path) -> None:
    model = members_on("llama", lora_layers=1)
    alone = model.member(2)
    assert all(value.requires_grad for value in alone.parameters())
    alone.save_pretrained(tmp_path)
    assert not is_members(tmp_path)
    tokens = laid_out(model)
    again = RewardModel.from_pretrained(tmp_path, dtype="float64").eval()
    assert_same(again(tokens).reward, model(tokens).reward[:, 2])
    alone.backbone.get_input_embeddings().weight.data.zero_()
    assert_same(again(tokens).reward, model(tokens).reward[:, 2])


def test_constructors(tmp_path: Path) -> None:
    config = tiny_model("llama").backbone.config
    model = MemberRewardModel.from_config(config, members=Members(num_members=2), seed=1)
    assert type(model) is MemberRewardModel
    assert model.num_members == 2
    assert model.training
    tiny_model("llama").save_pretrained(tmp_path)
    assert MemberRewardModel.from_pretrained(tmp_path, dtype="bfloat16").num_members == 10
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "causal")
    model = MemberRewardModel.from_pretrained(tmp_path / "causal", keep_lm_head=True)
    tokens = laid_out(model)
    assert model.lm_loss(model(tokens, keep_hidden=True), tokens).isfinite()
    shared = MemberRewardModel.from_pretrained(tmp_path, lora=LoraAdapter(rank=2), members=Members(num_members=2))
    trained = {key for key, value in shared.named_parameters() if value.requires_grad}
    assert {key.split(".")[0] for key in trained} == {"backbone", "heads"}
    assert all(".lora_" in key for key in trained if key.startswith("backbone"))


def test_what_a_backbone_was_loaded_with_holds_for_its_members(tmp_path: Path) -> None:
    """Weights that were left on the disk are read, and activations that are kept go to the host."""
    tiny_model("llama").save_pretrained(tmp_path)
    members = Members(num_members=2)
    whole, unread, offloaded = (
        MemberRewardModel.from_pretrained(tmp_path, members=members, dtype="float64", **options)
        for options in ({}, {"load_sharded": True}, {"gradient_checkpointing": True, "offload_activations": True})
    )
    tokens = laid_out(whole)
    assert_same(unread(tokens).reward, whole(tokens).reward)
    with patch("lightning_rm.models.reward_model.save_on_cpu", wraps=save_on_cpu) as moved:
        assert_same(offloaded(tokens).reward, whole(tokens).reward)
    assert moved.called


def test_members_read_a_probed_backbone_as_the_probe_found_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "is_proven", lambda _: False)
    monkeypatch.setattr(families, "_why_rows", lambda *_: None)
    with pytest.warns(UserWarning, match="every sequence gets a row of its own"):
        model = MemberRewardModel.from_config(family_config("jamba"), members=Members(num_members=2))
    for one in (model, model.member(0)):
        assert not one.architecture.packs
        assert one.last_layer == "whole"


@pytest.mark.parametrize("settings", [{}, {"lora_layers": 1}])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_bfloat16_backbone_and_autocast_leave_heads_in_float32(name: str, settings: dict[str, Any]) -> None:
    model = MemberRewardModel.of(tiny_model(name, dtype="bfloat16"), Members(num_members=2, **settings))
    with torch.autocast("cpu", torch.bfloat16):
        reward = model(laid_out(model)).reward
    assert reward.dtype == torch.float32
    assert not torch.equal(reward, reward.bfloat16().float())
    reward.square().sum().backward()
    assert {value.dtype for value in model.head_parameters()} == {torch.float32}


def test_heads_cast_to_bfloat16_are_an_error() -> None:
    model = members_on("llama").to(torch.bfloat16)
    with pytest.raises(ValueError, match="bf16-mixed"):
        model(laid_out(model))


def test_errors(tmp_path: Path) -> None:
    for settings, message in (
        ({"num_members": 0}, "num_members=0"),
        ({"lora_layers": -1}, "lora_layers=-1"),
        ({"rank": 0}, "rank=0"),
        ({"alpha": -1}, "alpha=-1"),
        ({"freeze_layers": 1, "lora_layers": 1}, "leave freeze_layers out"),
        ({"freeze_layers": 1, "freeze_backbone": True}, "leave freeze_layers out"),
    ):
        with pytest.raises(ValueError, match=message):
            Members(**settings)
    adapted = Members(lora_layers=1)
    for model, members, message in (
        (tiny_model("llama"), Members(lora_layers=3), "2 layers"),
        (tiny_model("llama"), Members(freeze_layers=2), "2 layers"),
        (tiny_model("deberta-v2"), adapted, "lora_layers=0"),
        (tiny_model("llama", lora=LoraAdapter()), adapted, "leave peft= out"),
        (tiny_model("llama", gradient_checkpointing=True), adapted, "gradient_checkpointing"),
    ):
        with pytest.raises(ValueError, match=message):
            MemberRewardModel.of(model, members)
    AutoModelForCausalLM.from_config(tiny_model("llama").backbone.config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="keep_lm_head"):
        MemberRewardModel.from_pretrained(tmp_path, members=adapted, keep_lm_head=True)
    with pytest.raises(ValueError, match=r"RewardModel\.from_pretrained"):
        MemberRewardModel.load(tmp_path)
    with pytest.raises(ValueError, match="counted from 0"):
        members_on().member(3)


def test_members_of_other_weights_are_an_error(tmp_path: Path) -> None:
    """A later export removes them; where they are put back, they are not of the weights beside them."""
    members_on().save_pretrained(tmp_path)
    stored = (tmp_path / MEMBERS_FILE).read_bytes()
    tiny_model("llama", seed=9).save_pretrained(tmp_path)
    assert not is_members(tmp_path)
    (tmp_path / MEMBERS_FILE).write_bytes(stored)
    with pytest.raises(ValueError, match="another model was saved there"):
        MemberRewardModel.load(tmp_path, dtype="float64")


def test_bootstrap_counts_are_poisson_and_independent() -> None:
    row = torch.arange(20_000)
    weights = bootstrap_weights(row, 4, seed=1)
    assert weights.shape == (4, 20_000)
    assert weights.dtype == torch.float32
    for member in weights:
        assert float(member.mean()) == pytest.approx(1, abs=0.03)
        assert float(member.var()) == pytest.approx(1, abs=0.06)
        for count in range(5):
            share = float((member == count).float().mean())
            assert share == pytest.approx(math.exp(-1) / math.factorial(count), abs=0.012), count
    assert (torch.corrcoef(weights) - torch.eye(4)).abs().max() < 0.03
    seeds = torch.stack([bootstrap_weights(row, 1, seed)[0] for seed in range(4)])
    assert (torch.corrcoef(seeds) - torch.eye(4)).abs().max() < 0.03
    assert abs(float(torch.corrcoef(torch.stack([weights[0, 1:], weights[0, :-1]]))[0, 1])) < 0.03


def test_bootstrap_counts_depend_on_row_member_and_seed_alone() -> None:
    row = torch.tensor([7, 3, 2**40, 3])
    weights = bootstrap_weights(row, 5, seed=2)
    assert torch.equal(weights[:, 1], weights[:, 3])
    assert torch.equal(bootstrap_weights(row[:1], 3, seed=2), weights[:3, :1])
    # From SplitMix64 in Python's own integers: a voter whose training goes on is trained on the same pairs.
    assert bootstrap_weights(torch.arange(8), 2).tolist() == [[0, 0, 1, 2, 0, 2, 1, 0], [1, 1, 3, 2, 2, 2, 1, 1]]
