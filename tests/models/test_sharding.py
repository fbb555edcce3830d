"""Two sharded processes are one: rewards, gradients, exported weights, and what is said of tensor parallelism."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.float64 import assert_same
from tests.models import shard_worker
from tests.processes import run_ranks
from tests.tiny import gradients, tiny_model

ALL = slice(0, 4)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two processes, once for all tests here."""
    folder = tmp_path_factory.mktemp("sharded")
    config = tiny_model("llama", changes={"tie_word_embeddings": True}).backbone.config
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "causal")
    run_ranks(shard_worker.run, 2, str(folder))
    return folder, torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("case", shard_worker.CASES)
def test_two_processes_equal_one(case: str, ran: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, found = ran
    model = shard_worker.build(case, folder)
    reward = shard_worker.step(model, shard_worker.batch(model, ALL))
    assert_same(found[case]["reward"], reward)
    for name, expected in gradients(model).items():
        if name in found[case]["gradients"]:
            assert_same(found[case]["gradients"][name], expected)
        else:
            assert not expected.any()
    model.save_pretrained(tmp_path)
    expected, exported = (load_file(path / "model.safetensors") for path in (tmp_path, folder / case))
    assert exported.keys() == expected.keys()
    for name in expected:
        assert_same(exported[name], expected[name])
    with torch.no_grad():
        after = model(shard_worker.batch(model, ALL)).reward
    assert_same(found[case]["after"], after)


def test_a_tensor_parallel_mesh_is_an_error(ran: tuple[Path, dict[str, Any]]) -> None:
    assert "tensor_parallel_size=1 and data_parallel_size=2" in ran[1]["error"]


def test_a_bfloat16_backbone_keeps_a_float32_head_when_sharded(ran: tuple[Path, dict[str, Any]]) -> None:
    model = tiny_model("llama", dtype="bfloat16")
    with torch.no_grad():
        expected = model(shard_worker.batch(model, ALL)).reward
    assert ran[1]["mixed"].dtype == torch.float32
    torch.testing.assert_close(ran[1]["mixed"], expected, atol=1e-3, rtol=1e-3)
