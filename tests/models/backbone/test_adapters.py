"""LoRA trains adapters and the head alone; QLoRA says what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lightning_rm.batch import LayoutName, Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.backbone.adapters import LoraAdapter, count_parameters
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same
from tests.tiny import gradients, pairs, prompted, tiny_model


def step(model: RewardModel, layout: LayoutName = "padded", samples: Sequence[Sample] | None = None) -> None:
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    tokens = LAYOUTS[layout](samples or pairs(), model.read_at, model.pad_id)
    output = model.train()(tokens)
    (output.chosen - output.rejected).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "modernbert"])
def test_lora_trains_adapters_and_head_alone(name: str) -> None:
    """B is zero at first, so A has no gradient in the first step: two steps move everything that is trained."""
    model = tiny_model(name, lora=LoraAdapter(rank=2))
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    step(model)
    step(model)
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    head = {id(value) for value in model.head_parameters()}
    adapters = {key for key in before if ".lora_" in key}
    assert adapters
    # The loss is a difference of rewards: a bias added to all of them has no gradient.
    weights = {key for key, value in model.named_parameters() if id(value) in head and value.ndim == 2}
    assert moved >= adapters | weights
    assert moved <= adapters | {key for key, value in model.named_parameters() if id(value) in head}
    assert not [key for key in adapters if "pooler" in key or "classifier" in key or "score" in key]


def test_a_model_with_fresh_adapters_gives_the_rewards_without() -> None:
    for name in ("llama", "bert"):
        with_, without = tiny_model(name, lora=LoraAdapter()), tiny_model(name)
        tokens = LAYOUTS["packed"](pairs(), with_.read_at, with_.pad_id)
        assert_same(with_(tokens).reward, without(tokens).reward)


def test_target_modules_choose_the_layers() -> None:
    model = tiny_model("llama", lora=LoraAdapter(rank=2, target_modules=["q_proj", "v_proj"]))
    adapted = {key.split(".lora_")[0].rpartition(".")[2] for key, _ in model.named_parameters() if ".lora_" in key}
    assert adapted == {"q_proj", "v_proj"}
    with pytest.raises(ValueError, match=r"target_modules=\['query'\].*q_proj"):
        tiny_model("llama", lora=LoraAdapter(target_modules=["query"]))


def test_adapters_are_seeded_and_leave_the_global_random_state_alone() -> None:
    torch.manual_seed(1)
    first = tiny_model("llama", lora=LoraAdapter(seed=3))
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(2)
    second, other = (tiny_model("llama", lora=LoraAdapter(seed=seed)) for seed in (3, 4))
    states: list[dict[str, Any]] = [dict(model.state_dict()) for model in (first, second, other)]
    keys = [key for key in states[0] if "lora_A" in key]
    assert all(torch.equal(states[0][key], states[1][key]) for key in keys)
    assert not any(torch.equal(states[0][key], states[2][key]) for key in keys)


def test_adapters_on_a_bfloat16_backbone_are_float32() -> None:
    model = tiny_model("llama", dtype="bfloat16", lora=LoraAdapter(rank=2))
    dtypes = {value.dtype for value in model.parameters() if value.requires_grad}
    assert dtypes == {torch.float32}
    step(model)
    assert all(value.isfinite().all() for value in gradients(model).values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_checkpointing_reaches_the_adapters(layout: LayoutName) -> None:
    found = []
    for checkpointing in (False, True):
        model = tiny_model("llama", gradient_checkpointing=checkpointing, lora=LoraAdapter(rank=2))
        step(model, layout, prompted())
        found.append(gradients(model))
    assert any(value.abs().sum() > 0 for key, value in found[0].items() if "lora_B" in key)
    for key, expected in found[0].items():
        assert_same(found[1][key], expected)


def test_parameters_are_counted() -> None:
    model = tiny_model("llama", lora=LoraAdapter(rank=2, target_modules=["q_proj"]))
    trained, whole = count_parameters(model)
    assert trained == 2 * (2 * 32 + 32 * 2) + 32  # two layers of A (2, 32) and B (32, 2), a head of 32
    assert whole == sum(value.numel() for value in model.parameters())


def test_four_bits_need_adapters_and_a_cuda_device(tmp_path: Any) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="give lora="):
        RewardModel.from_pretrained(tmp_path, load_in_4bit=True)
    with pytest.raises(ValueError, match="keep_lm_head"):
        RewardModel.from_pretrained(tmp_path, load_in_4bit=True, lora=LoraAdapter(), keep_lm_head=True)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA"):
            RewardModel.from_pretrained(tmp_path, load_in_4bit=True, lora=LoraAdapter())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0; give 1 or more"),
        ({"rank": 2.5}, "rank=2.5; give a whole number, 1 or more"),
        ({"alpha": float("nan")}, "alpha=nan; give a number, 0 or more"),
        ({"dropout": float("nan")}, "dropout=nan; give a number, 0 or more"),
        ({"dropout": 1.0}, "dropout=1.0; give a probability below 1"),
    ],
)
def test_lora_refuses_numbers_that_make_no_adapter(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraAdapter(**options)
