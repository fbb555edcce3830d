"""Liger's kernels and torch's: what they are asked for, that nothing changes, and why they cannot be had."""

from __future__ import annotations

import shutil
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from transformers import PreTrainedModel

from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.backbone import kernels
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import assert_same
from tests.tiny import PAD, gradients, pairs, prompted, tiny_model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PreTrainedModel, dict[str, Any]]]:
    """A machine with a GPU and Liger, which knows Llama alone; what transformers is asked for."""
    table = SimpleNamespace(MODEL_TYPE_TO_APPLY_LIGER_FN={"llama": None})
    calls: list[tuple[PreTrainedModel, dict[str, Any]]] = []
    monkeypatch.setattr(kernels, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(kernels, "import_module", lambda name: table)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "apply_liger_kernel", lambda model, config: calls.append((model, config)))
    return calls


def test_liger_replaces_no_loss(asked: list[tuple[PreTrainedModel, dict[str, Any]]]) -> None:
    backbone = tiny_model("llama").backbone
    kernels.use_liger(backbone)
    assert asked == [(backbone, {"cross_entropy": False, "fused_linear_cross_entropy": False})]


def test_a_family_whose_classifiers_liger_does_not_take(
    asked: list[tuple[PreTrainedModel, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3, Qwen3.5 and Qwen3-Next: what is below the head gets the kernels."""

    def apply(model: PreTrainedModel, config: dict[str, Any]) -> None:
        if model is not model.base_model:
            raise TypeError("The model must be LlamaForCausalLM.")
        asked.append((model, config))

    monkeypatch.setattr(kernels, "apply_liger_kernel", apply)
    backbone = tiny_model("llama").backbone
    kernels.use_liger(backbone)
    assert [model for model, _ in asked] == [backbone.base_model]


def test_an_architecture_without_kernels_is_an_error(asked: list[tuple[PreTrainedModel, dict[str, Any]]]) -> None:
    with pytest.raises(ValueError, match="no kernels for bert"):
        kernels.use_liger(tiny_model("bert").backbone)
    assert asked == []


def test_a_machine_without_a_gpu_is_an_error(
    asked: list[tuple[PreTrainedModel, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds none"):
        kernels.use_liger(tiny_model("llama").backbone)
    assert asked == []


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-rm\[liger\]'"):
        RewardModel.from_pretrained(tmp_path, pad_id=tiny_model("llama").pad_id, liger=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rewards_stay_on_a_gpu() -> None:
    pytest.importorskip("liger_kernel")
    plain, fused = tiny_model("llama").cuda(), tiny_model("llama").cuda()
    tokens = LAYOUTS["shared_prefix"](prompted(), "last", plain.pad_id).to("cuda")
    expected = plain(tokens).reward.detach()
    kernels.use_liger(fused.backbone)
    torch.testing.assert_close(fused(tokens).reward.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def folder(tmp_path: Any) -> Any:
    """A GPT-NeoX of two layers: nothing in its layers is in float32 when it is in float64."""
    tiny_model("gpt_neox").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_layers_give_the_same_rewards_and_gradients(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the last; the second batch, of another size, compiles nothing anew.

    Graphs and their backward passes are Inductor's and operators torch's own: loops in C++, whose compiler takes as
    long as all else, are tried by `python -m tests.compiled`.
    """
    monkeypatch.setattr(inductor, "compile_threads", 1)  # its workers would each import torch
    monkeypatch.setattr(inductor, "fallback_by_default", True)
    plain, compiled = (
        RewardModel.from_pretrained(folder, pad_id=PAD, dtype="float64", compile=compile) for compile in (False, True)
    )
    assert [kernels.is_compiled(layer) for layer in transformer_layers(compiled.backbone)] == [True, False]
    num_graphs: list[int] = []
    for samples in (prompted(), pairs()):
        tokens = LAYOUTS["shared_prefix"](samples, "last", PAD)
        found: list[dict[str, Tensor]] = []
        for model in (plain, compiled):
            model.zero_grad()
            model(tokens).reward.square().sum().backward()
            found.append(gradients(model))
        assert_same(compiled(tokens).reward, plain(tokens).reward)
        for key, expected in found[0].items():
            assert_same(found[1][key], expected)
        num_graphs.append(counters["stats"]["unique_graphs"])
    assert num_graphs[0] == num_graphs[1] > 0


def test_what_compile_does_not_go_with(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        RewardModel.from_pretrained(folder, pad_id=PAD, compile=True, gradient_checkpointing=True)
    monkeypatch.setattr(shutil, "which", lambda name: "a compiler" if name == "clang++" else None)
    with pytest.raises(ValueError, match="compile does not go with lora_layers"):
        MemberRewardModel.from_pretrained(folder, pad_id=PAD, compile=True, members=Members(lora_layers=1))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"install g\+\+"):
        RewardModel.from_pretrained(folder, pad_id=PAD, compile=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Triton"):
        kernels.compile_layers([])
