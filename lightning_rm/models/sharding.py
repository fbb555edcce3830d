"""Sharding: a reward model's weights, gradients and optimizer state over all ranks (FSDP2).

It knows modules and device meshes; not batches, losses or a trainer.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn import Module
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.models.backbone.merging import adapted_layers, is_plain
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all devices of all nodes and never split within a layer.

    Its own default splits layers over the devices of a node, and takes one of the sizes from the user: here both follow
    from the trainer's `devices` and `num_nodes`.

    Args:
        save_distributed_checkpoint: one folder of shards, or (False) one file gathered on rank 0.
        process_group_backend: `nccl`, `gloo` or None for what fits the device.
    """

    def __init__(
        self, save_distributed_checkpoint: bool = False, process_group_backend: Literal["nccl", "gloo"] | None = None
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        """Take every process into the mesh's one dimension, then start them."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(model: AnyRewardModel, mesh: DeviceMesh, compute_dtype: torch.dtype | None = None) -> None:
    """Shard a reward model in place: each layer, the head, and the rest with the model as a whole.

    The head is a group of its own, so that it stays in float32 when the backbone computes in `compute_dtype`. Gradients
    are reduced in float32. A model that is sharded already is left as it is.

    Args:
        model: with its weights on every rank.
        mesh: one dimension, or Lightning's two, `data_parallel` and `tensor_parallel`, the latter of size 1.
        compute_dtype: what the backbone's weights are gathered and used in; None for the dtype they are stored in.

    Raises:
        ValueError: if the mesh would split a layer over ranks (tensor parallelism), which nothing here does: the ranks
            would each train a model of their own.
    """
    if model.num_rewards > 1:
        raise ValueError("members of one backbone cannot be sharded; train them with trainer=ddp, or whole voters")
    for plain in model.plain_models:
        _shard_plain(plain, mesh, compute_dtype)


def _shard_plain(model: RewardModel, mesh: DeviceMesh, compute_dtype: torch.dtype | None) -> None:
    if isinstance(model, FSDPModule):
        return
    if not all(is_plain(layer) for _, layer in adapted_layers(cast(Module, model.backbone))):
        raise ValueError("of adapters LoRA alone is merged from shards; take peft=lora or rslora, or trainer=ddp")
    if model.router_loss:
        raise ValueError("router_loss has not been shown to go with FSDP2; set it to 0, or take trainer=ddp")
    mesh = data_parallel(mesh)
    reduced_in = torch.promote_types(model.backbone.dtype, torch.float32)
    backbone_policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=reduced_in)
    backbone = cast(Module, model.backbone)
    for name in model.architecture.head:
        fully_shard(backbone.get_submodule(name), mesh=mesh, mp_policy=MixedPrecisionPolicy())
    for layer in backbone.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            fully_shard(cast(Module, layer), mesh=mesh, mp_policy=backbone_policy)
    fully_shard(model, mesh=mesh, mp_policy=backbone_policy)


def shard_part(part: Module, mesh: DeviceMesh) -> None:
    """Shard in place, in float32, what a method trains beside the reward model; a sharded part is left as it is.

    Args:
        part: with its weights on every rank; it must be used by calling it.
        mesh: as in `shard`.
    """
    if not isinstance(part, FSDPModule):
        fully_shard(part, mesh=data_parallel(mesh), mp_policy=MixedPrecisionPolicy())


def reshard(module: Module) -> None:
    """Let go of whole weights in place: after a forward without a backward FSDP2 keeps those of the root gathered."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def data_parallel(mesh: DeviceMesh) -> DeviceMesh:
    """Return the dimension of a mesh that data is divided over.

    Raises:
        ValueError: if a second dimension would split a layer over ranks.
    """
    if mesh.ndim == 1:
        return mesh
    size = mesh["tensor_parallel"].size()
    if size != 1:
        raise ValueError(
            f"tensor_parallel_size={size}: this package shards data-parallel only; set "
            f"tensor_parallel_size=1 and data_parallel_size={mesh.size()}"
        )
    return mesh["data_parallel"]
