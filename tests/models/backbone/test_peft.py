"""Every configuration of peft's that acts within layers trains, packs, merges and goes alone; the head goes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    AutoPeftModelForSequenceClassification,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftConfig,
    PromptTuningConfig,
    VBLoRAConfig,
    VeraConfig,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from lightning_rm.models.backbone.adapters import LoraAdapter, is_plain_lora
from lightning_rm.models.backbone.routers import routers_of
from lightning_rm.models.reward_model import RewardModel
from tests.families import family_config, older_than
from tests.float64 import assert_same, in_float64
from tests.tiny import PAD, laid_out, layouts_of, tiny_model

FORWARD = {"llama": "down_proj", "gpt2": "mlp.c_proj"}
KEYS = {"llama": ["k_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}


def adapter(kind: str, name: str) -> PeftConfig:
    """An adapter by its name; IA3 by the names of a family's keys and MLP."""
    made: dict[str, Any] = {
        "lora": lambda: LoraConfig(r=2, target_modules="all-linear"),
        "dora": lambda: LoraConfig(r=2, use_dora=True, target_modules="all-linear"),
        "rslora": lambda: LoraConfig(r=4, use_rslora=True, target_modules=[r"attn", "q_proj", "c_attn"]),
        "ia3": lambda: IA3Config(target_modules=KEYS[name], feedforward_modules=[FORWARD[name]]),
        "vera": lambda: VeraConfig(r=4, target_modules="all-linear"),
        "loha": lambda: LoHaConfig(r=2, target_modules=r".*(q_proj|c_attn|c_fc|up_proj)"),
    }
    return made[kind]()


def trained(kind: str, name: str) -> RewardModel:
    model = in_float64(tiny_model(name, adapter=adapter(kind, name)))
    for module in model.backbone.modules():
        for buffer in dict(module.named_buffers(recurse=False)).values():
            buffer.data = buffer.data.double() if buffer.is_floating_point() else buffer.data
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    head = {id(value) for value in model.head_parameters()}
    for _ in range(2):
        optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.5)
        output = model(laid_out(model))
        (output.chosen - output.rejected).sum().backward()
        optimizer.step()
        model.zero_grad()
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert any("score" in key for key in moved)
    assert len(moved) > 2
    assert not [
        key for key, value in model.named_parameters() if key in moved and "base_layer" in key and id(value) not in head
    ]
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "llama") for kind in ("lora", "dora", "rslora", "ia3", "vera", "loha")),
        *((kind, "gpt2") for kind in ("lora", "dora", "ia3", "vera")),
    ],
)
def test_an_adapter(kind: str, name: str, tmp_path: Path) -> None:
    model = trained(kind, name)
    with torch.no_grad():
        expected = model(laid_out(model)).reward
        for layout in layouts_of(model):
            assert_same(model(laid_out(model, layout)).reward, expected)
        model.save_pretrained(tmp_path / "merged")
        merged = RewardModel.from_pretrained(tmp_path / "merged", dtype="float64").eval()
        assert_same(merged(laid_out(model)).reward, expected)
        tiny_model(name).save_pretrained(tmp_path / "base")
        model.save_adapters(tmp_path / "alone", str(tmp_path / "base"))
        alone = AutoPeftModelForSequenceClassification.from_pretrained(
            tmp_path / "alone", num_labels=1, pad_token_id=PAD, dtype=torch.float64
        ).double()
        set_peft_model_state_dict(alone, load_file(tmp_path / "alone" / "adapter_model.safetensors"))  # not rounded
        tokens = laid_out(model)
        read = alone.eval()(input_ids=tokens.input_ids, attention_mask=tokens.mask.long()).logits[:, 0]
    assert_same(read[tokens.reward_index // tokens.input_ids.shape[1]], expected)


def test_what_is_no_layers_adapter_is_an_error() -> None:
    with pytest.raises(ValueError, match="PromptTuningConfig: it learns a prompt"):
        tiny_model("llama", adapter=PromptTuningConfig(num_virtual_tokens=2))
    with pytest.raises(ValueError, match="give one of them"):
        tiny_model("llama", adapter=LoraConfig(), lora=LoraAdapter())
    with pytest.raises(ValueError, match="VBLoRAConfig trains numbers that belong to no layer"):
        tiny_model("llama", adapter=VBLoRAConfig(target_modules=["q_proj"], vector_length=8))
    with pytest.raises(ValueError, match=r"target_parameters=\['mlp.experts.down_proj'\].*merged into none here"):
        tiny_model("llama", adapter=LoraConfig(target_parameters=["mlp.experts.down_proj"]))
    with pytest.raises(ValueError, match="AdaLoraConfig: its ranks are allotted by calls"):
        tiny_model("llama", adapter=AdaLoraConfig(total_step=9))
    with pytest.raises(ValueError, match=r"target_modules=\['query'\].*q_proj"):
        tiny_model("llama", adapter=LoraConfig(target_modules=["query"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_bias": True}, r"lora_bias=True\): most layers have no bias"),
        ({"trainable_token_indices": [5]}, r"trainable_token_indices=\[5\]\): rows of embeddings"),
        ({"layers_to_transform": [0]}, r"layers_to_transform=\[0\]\): say the layers by target_modules"),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication=.*a model has the layers"),
        ({"modules_to_save": ["score", "embed_tokens"]}, "the head is trained .*leave 'embed_tokens' out"),
    ],
)
def test_an_option_that_would_not_be_trained_or_exported_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model("llama", adapter=LoraConfig(target_modules=["q_proj"], **options))


def test_the_head_may_be_named_beside_adapters() -> None:
    """`classifier` is what the head of other families is called; peft's own lists name both."""
    model = tiny_model("llama", adapter=LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier", "score"]))
    assert all(parameter.requires_grad for parameter in model.head_parameters())


@pytest.mark.parametrize("name", ["phimoe", "jetmoe", "mixtral", "qwen3_moe", "deepseek_v3", "qwen3_next", "gpt_oss"])
def test_all_linear_is_every_linear_layer_but_routers(name: str) -> None:
    """No tensor of experts is adapted in the place of a dense or shared MLP."""
    model = RewardModel.from_config(family_config(name), adapter=LoraConfig(target_modules="all-linear"))
    routers = routers_of(model.backbone)
    assert routers or (name == "deepseek_v3" and older_than(5, 18))
    adapted = [key for key, _ in model.backbone.named_parameters() if ".lora_" in key]
    plain = RewardModel.from_config(family_config(name)).backbone
    others = (*(f"{router}." for router in routers), "score.")
    linear = {key for key, part in plain.named_modules() if isinstance(part, nn.Linear)}
    assert {key.partition(".lora_")[0] for key in adapted} == {
        key for key in linear if not f"{key}.".startswith(others)
    }
    assert not [key for key in adapted if any(key.startswith(f"{router}.") for router in routers)]
    assert not any(value.requires_grad for router in routers.values() for value in router.parameters())


def test_adapters_that_peft_would_put_elsewhere_are_exported_merged(tmp_path: Path) -> None:
    """DeepSeek's dense and shared MLPs, whose names peft takes for those of its experts."""
    config = LoraConfig(r=2, init_lora_weights=False, target_modules="all-linear")
    model = in_float64(RewardModel.from_config(family_config("deepseek_v3"), adapter=config, dtype="float64")).eval()
    with torch.no_grad():
        expected = model(laid_out(model)).reward
        model.save_pretrained(tmp_path)
        merged = in_float64(RewardModel.from_pretrained(tmp_path, dtype="float64")).eval()
        assert_same(merged(laid_out(model)).reward, expected)
    with pytest.raises(ValueError, match="peft would put adapters of this deepseek_v3's MLPs on its experts"):
        model.save_adapters(tmp_path / "alone", "base")


def test_a_start_that_changes_the_weights_is_merged_and_not_written_alone(tmp_path: Path) -> None:
    """PiSSA takes its first adapters out of the weights, whose sum is the weight that was.

    It takes them by a decomposition that is of float32 alone: hence one bound of 1e-3 on rewards near .1.
    """
    config = LoraConfig(r=2, init_lora_weights="pissa", target_modules="all-linear")
    model, plain = (tiny_model("llama", dtype="float32", adapter=one) for one in (config, None))
    with torch.no_grad():
        torch.testing.assert_close(model(laid_out(model)).reward, plain(laid_out(model)).reward, rtol=1e-3, atol=1e-3)
        in_float64(model).save_pretrained(tmp_path / "merged")
        merged = RewardModel.from_pretrained(tmp_path / "merged", dtype="float64").eval()
        assert_same(merged(laid_out(model)).reward, model(laid_out(model)).reward)
    with pytest.raises(ValueError, match=r"init_lora_weights='pissa'.*export the model whole"):
        model.save_adapters(tmp_path / "alone", "base")


def test_plain_lora() -> None:
    assert is_plain_lora(LoraAdapter())
    assert is_plain_lora(LoraConfig(use_rslora=True))
    assert not is_plain_lora(LoraConfig(use_dora=True))
    assert not is_plain_lora(VeraConfig())


def test_an_exported_dora_is_a_model_of_transformers(tmp_path: Path) -> None:
    model = trained("dora", "llama")
    model.save_pretrained(tmp_path)
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float64)
    tokens = laid_out(model)
    with torch.no_grad():
        read = exported(input_ids=tokens.input_ids, attention_mask=tokens.mask.long()).logits[:, 0]
        assert_same(read[tokens.reward_index // tokens.input_ids.shape[1]], model(tokens).reward)
