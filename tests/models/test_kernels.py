"""Liger's kernels: what they are asked for, and every reason why they cannot be had."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from lightning_rm.data.layouts import LAYOUTS
from lightning_rm.models import kernels
from lightning_rm.models.reward_model import RewardModel
from tests.tiny import prompted, tiny_model


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
