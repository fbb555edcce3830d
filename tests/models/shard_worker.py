"""One rank of a sharded step: what two processes must agree on with one."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_rm.batch import Sample, TokenBatch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.models.sharding import shard
from tests.float64 import keep_float64
from tests.tiny import conversation, tiny_model

CASES: dict[str, dict[str, Any]] = {
    "llama": {"name": "llama"},
    "llama_checkpointed": {"name": "llama", "gradient_checkpointing": True},
    "llama_lora": {"name": "llama", "lora": LoraAdapter(rank=2)},
    "bert": {"name": "bert"},
    "lm_head": {"name": "llama"},
    "offloaded": {"name": "llama", "gradient_checkpointing": True},
    "unread": {},
    "unread_lora": {"lora": LoraAdapter(rank=2, seed=3)},
}
"""`unread`: each rank reads its own part of the weights from the disk."""


def build(case: str, folder: Path, load_sharded: bool = False) -> RewardModel:
    if case.startswith("unread"):
        path = folder / "causal"
        return RewardModel.from_pretrained(path, dtype="float64", load_sharded=load_sharded, **CASES[case]).eval()
    if case == "lm_head":
        return RewardModel.from_pretrained(folder / "causal", dtype="float64", keep_lm_head=True).eval()
    return tiny_model(**CASES[case])


def batch(model: RewardModel, part: slice) -> TokenBatch:
    """Pairs of equal length, so that the mean over ranks of mean losses is the mean over all pairs."""
    prompt = conversation(12)
    samples = [Sample([[*prompt, *conversation(9, s)], [*prompt, *conversation(9, 10 + s)]], 12) for s in range(4)]
    return LAYOUTS["shared_prefix" if model.read_at == "last" else "packed"](samples[part], model.read_at, model.pad_id)


def step(model: RewardModel, tokens: TokenBatch) -> torch.Tensor:
    """One SGD step; the rewards before it."""
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.5)
    output = model(tokens, keep_hidden=model.lm_head is not None)
    loss = -torch.nn.functional.logsigmoid(output.chosen - output.rejected).mean()
    if model.lm_head is not None:
        loss = loss + model.lm_loss(output, tokens)
    loss.backward()
    optimizer.step()
    return output.reward.detach()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors with memory that operations have made and somebody still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if not isinstance(tensor, torch.Tensor) or isinstance(tensor, DTensor) or tensor.is_meta:
                continue
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self.seen:
                self.seen.add(key)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, key, storage.nbytes())
        return made

    def _gone(self, key: int, num_bytes: int) -> None:
        self.seen.discard(key)
        self.now -= num_bytes


def size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def of_70_billion(rank: int, folder: str, port: int) -> None:
    """The shapes of Llama-2-70B over 64 ranks of which this process is one: bytes of its shards, and of the whole."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=64)
    with torch.device("meta"):
        model = RewardModel.from_config(
            {
                "model_type": "llama",
                "hidden_size": 8192,
                "intermediate_size": 28672,
                "num_hidden_layers": 80,
                "num_attention_heads": 64,
                "num_key_value_heads": 8,
            },
            vocab_size=32001,
            pad_id=32000,
        )
    shard(model, init_device_mesh("cpu", (64,)))
    own = size(value.to_local() for value in model.parameters() if isinstance(value, DTensor))
    (Path(folder) / "bytes.json").write_text(json.dumps({"own": own, "whole": size(model.parameters())}))


def run(rank: int, folder: str, port: int) -> None:
    """Each case: a step on this rank's half of the pairs, then rewards, gradients and an exported folder."""
    torch.set_num_threads(1)
    keep_float64()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    found: dict[str, Any] = {}
    for case in CASES:
        with LiveBytes() as live:
            model = build(case, Path(folder), load_sharded=case.startswith("unread"))
            shard(model, mesh, cpu_offload=case == "offloaded")
        shard(model, mesh)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        reward = step(model, batch(model, slice(2 * rank, 2 * rank + 2)))
        gathered = [torch.empty_like(reward) for _ in range(2)]
        dist.all_gather(gathered, reward)
        gradients = {
            name: value.grad.full_tensor()
            for name, value in model.named_parameters()
            if isinstance(value.grad, DTensor)
        }
        model.save_pretrained(Path(folder) / case)
        with torch.no_grad():
            after = model(batch(model, slice(0, 4))).reward
        own = [value.to_local() for value in model.parameters() if isinstance(value, DTensor)]
        found[case] = {
            "reward": torch.cat(gathered, dim=1),
            "gradients": gradients,
            "after": after,
            "bytes": {"most": live.most, "own": size(own), "whole": size(model.parameters())},
        }
    wrong = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data_parallel", "tensor_parallel"))
    try:
        shard(tiny_model("llama"), wrong)
    except ValueError as error:
        found["error"] = str(error)
    mixed = tiny_model("llama", dtype="bfloat16")
    shard(mixed, mesh, torch.bfloat16)
    output = mixed(batch(mixed, slice(0, 4)))
    found["mixed"] = output.reward.detach()
    if rank == 0:
        torch.save(found, Path(folder) / "found.pt")
    dist.destroy_process_group()
