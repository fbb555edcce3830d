"""Two sharded processes are one: rewards, gradients, exported weights, and what is said of tensor parallelism."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import IA3Config
from safetensors.torch import load_file
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM

from lightning_rm.models.ensembles.member_settings import Members
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.models.sharding import shard
from tests.families import family_config
from tests.float64 import assert_same
from tests.models import shard_worker
from tests.processes import run_ranks
from tests.tiny import gradients, tiny_model

ALL = slice(0, 4)
IA3: dict[str, Any] = {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
NO_MESH = cast(DeviceMesh, None)  # what is refused is refused before the mesh is looked at


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


@pytest.mark.parametrize("case", ["unread", "unread_lora"])
def test_a_model_that_is_read_by_shards_never_stands_whole_on_a_rank(
    case: str, ran: tuple[Path, dict[str, Any]]
) -> None:
    """All that a rank has in memory while it loads: its shards, a layer's rows on their way, no whole model."""
    counted, eager = ran[1][case]["bytes"], ran[1]["llama"]["bytes"]
    assert counted["own"] <= counted["most"] < 0.75 * counted["whole"]
    assert eager["most"] >= eager["whole"]


def test_70_billion_parameters_are_a_64th_on_each_of_64_ranks(tmp_path: Path) -> None:
    """Counted on shapes: 69 billion parameters of float32, and no rank ever has more than its part."""
    run_ranks(shard_worker.of_70_billion, 1, str(tmp_path))
    counted = json.loads((tmp_path / "bytes.json").read_text())
    assert counted["whole"] == 4 * 68_714_520_576
    assert counted["own"] == pytest.approx(counted["whole"] / 64, rel=1e-3)


def test_weights_that_wait_are_read_whole_where_nothing_is_sharded(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    whole = tiny_model("llama")
    whole.save_pretrained(folder)
    model = RewardModel.from_pretrained(folder, load_sharded=True, dtype="float64")
    model.read_weights()
    assert_same(model(shard_worker.batch(model, ALL)).reward, whole(shard_worker.batch(whole, ALL)).reward)
    waiting = RewardModel.from_pretrained(folder, load_sharded=True)
    flipped = bytearray((folder / "model.safetensors").read_bytes())
    flipped[-1] ^= 1
    (folder / "model.safetensors").write_bytes(flipped)
    with pytest.raises(ValueError, match="has other bytes than were written"):
        waiting.read_weights()
    with pytest.raises(ValueError, match="load_sharded reads safetensors of families that the tests know; not 4 bits"):
        RewardModel.from_pretrained(folder, load_sharded=True, keep_lm_head=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="load_sharded reads safetensors, and there are none"):
        RewardModel.from_pretrained(folder, load_sharded=True)


def test_weights_that_a_class_draws_on_the_cpu_are_read_too(tmp_path: Path) -> None:
    """DiffLlama's lambdas have memory on whatever device the model is built."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(family_config("diffllama")).save_pretrained(tmp_path)
    waiting = RewardModel.from_pretrained(tmp_path, load_sharded=True, dtype="float64")
    assert all(value.is_meta for value in waiting.backbone.base_model.parameters())
    waiting.read_weights()
    expected = RewardModel.from_pretrained(tmp_path, dtype="float64").state_dict()
    found = waiting.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zamba2", r"zamba2 has model\.layers\.3\.shared_transformer\..*, which is another's twin or no parameter"),
        ("deepseek_v3", r"e_score_correction_bias, which is another's twin or no parameter; leave load_sharded out"),
        ("mixtral", r"missing: .*experts\.gate_up_proj, .* and 3 others; load_sharded reads weights by the names"),
    ],
)
def test_weights_that_cannot_be_read_by_name_are_not_left_out(name: str, said: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(family_config(name)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=said):
        RewardModel.from_pretrained(tmp_path, load_sharded=True)


def test_a_damaged_file_is_a_sentence_whoever_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tiny_model("llama", dtype="float32").save_pretrained(tmp_path)
    (tmp_path / "checksums.json").unlink()
    waiting = RewardModel.from_pretrained(tmp_path, load_sharded=True)
    file.write_bytes(file.read_bytes()[:1000])
    for read in (waiting.read_weights, lambda: RewardModel.from_pretrained(tmp_path, load_sharded=True)):
        with pytest.raises(ValueError, match=r"the weights cannot be read: .*model\.safetensors: .*header"):
            read()


def test_activations_on_the_host_change_nothing_and_are_the_layers_inputs(tmp_path: Path) -> None:
    """One saved tensor a layer crosses over, and no weight."""
    folder = tmp_path / "model"
    tiny_model("llama").save_pretrained(folder)
    options: dict[str, Any] = {"dtype": "float64", "gradient_checkpointing": True}
    found = []
    for offload in (False, True):
        model = RewardModel.from_pretrained(folder, offload_activations=offload, **options).train()
        reward = model(shard_worker.batch(model, ALL)).reward
        reward.square().sum().backward()
        found.append((reward, gradients(model)))
    assert_same(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        assert_same(found[1][1][name], gradient)
    with pytest.raises(ValueError, match="offload_activations moves what gradient_checkpointing keeps; set both"):
        RewardModel.from_pretrained(folder, offload_activations=True)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MemberRewardModel.of(tiny_model("llama"), Members(2)), "train them with trainer=ddp"),
        (lambda: tiny_model("llama", adapter=IA3Config(**IA3)), "take peft=lora or rslora, or trainer=ddp"),
        (
            lambda: RewardModel.from_config(family_config("mixtral"), router_loss=0.01),
            "router_loss .* set it to 0, or take trainer=ddp",
        ),
    ],
)
def test_what_is_not_sharded_is_refused_before_anything_is(model: Callable[[], RewardModel], message: str) -> None:
    made = model()
    with pytest.raises(ValueError, match=message):
        shard(made, NO_MESH)
    assert not any(isinstance(part, FSDPModule) for part in made.modules())
