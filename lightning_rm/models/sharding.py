"""Sharding: a reward model's weights, gradients and optimizer state over all ranks (FSDP2).

It knows modules and device meshes; not batches, losses or a trainer.
"""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn import Module
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.checksums import check_archive, check_weights, write_checksums
from lightning_rm.folder_drafts import folder_draft
from lightning_rm.models.backbone.merging import adapted_layers, is_plain
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel


class FSDP2Strategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, over all devices of all nodes and never split within a layer.

    Its own default splits layers over the devices of a node, and takes one of the sizes from the user: here both follow
    from the trainer's `devices` and `num_nodes`.

    A checkpoint of shards is a folder, swapped whole and with checksums of its files; training goes on from it
    with any number of ranks, as from one of a single file.

    Args:
        save_distributed_checkpoint: one folder of shards, or (False) one file gathered on rank 0.
        process_group_backend: `nccl`, `gloo` or None for what fits the device.
        cpu_offload: keep weights, gradients and optimizer state in the host's memory; layers come to the device one
            by one.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: Literal["nccl", "gloo"] | None = None,
        cpu_offload: bool = False,
    ) -> None:
        # Gradients that lie on the host are added up over ranks there.
        backend = "cpu:gloo,cuda:nccl" if cpu_offload and torch.cuda.is_available() else None
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend or backend,
        )
        self.cpu_offload = cpu_offload

    def setup_environment(self) -> None:
        """Take every process into the mesh's one dimension, then start them."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def model_to_device(self) -> None:
        """Move what is not sharded; shards that are offloaded stay where they are."""
        if not self.cpu_offload:
            return super().model_to_device()
        for buffer in cast(Module, self.model).buffers():
            buffer.data = buffer.data.to(self.root_device)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one file, or a folder that is swapped with the one of before when all ranks have written.

        Raises:
            NotADirectoryError: if a checkpoint of one file is in the place of a folder.
        """
        if not self._save_distributed_checkpoint:
            return super().save_checkpoint(checkpoint, filepath, storage_options)
        path = Path(self.broadcast(filepath))
        if path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "a checkpoint of one file is in its place", str(path))
        with folder_draft(path) if self.global_rank == 0 else nullcontext(path) as draft:
            super().save_checkpoint(checkpoint, draft, storage_options)
            self.barrier()
            if self.global_rank == 0:
                write_checksums(draft, lambda name: True)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read what `save_checkpoint` wrote, after a check that its bytes are those that were written.

        Raises:
            ValueError: if they are not.
        """
        path = Path(self.broadcast(checkpoint_path))
        if path.is_dir():
            check_weights(path, part=(self.global_rank, self.world_size))
        elif path.is_file():
            check_archive(path)
        reshard(cast(Module, self.model))  # offloaded, no move to a device has done so since the last forward
        return super().load_checkpoint(path, weights_only)


def shard(
    model: AnyRewardModel, mesh: DeviceMesh, compute_dtype: torch.dtype | None = None, cpu_offload: bool = False
) -> None:
    """Shard a reward model in place: each layer, the head, and the rest with the model as a whole.

    The head is a group of its own, so that it stays in float32 when the backbone computes in `compute_dtype`. Gradients
    are reduced in float32. A model that is sharded already is left as it is.

    Args:
        model: with its weights on every rank, or still on the disk (`load_sharded`): then each rank reads its own.
        mesh: one dimension, or Lightning's two, `data_parallel` and `tensor_parallel`, the latter of size 1.
        compute_dtype: what the backbone's weights are gathered and used in; None for the dtype they are stored in.
        cpu_offload: keep shards in the host's memory.

    Raises:
        ValueError: if the mesh would split a layer over ranks (tensor parallelism), which nothing here does: the ranks
            would each train a model of their own.
    """
    if model.num_rewards > 1:
        raise ValueError("members of one backbone cannot be sharded; train them with trainer=ddp, or whole voters")
    for plain in model.plain_models:
        _shard_plain(plain, mesh, compute_dtype, _where(cpu_offload))
        plain.read_weights(torch.device("cpu") if cpu_offload else _device_of(mesh))


def _shard_plain(
    model: RewardModel, mesh: DeviceMesh, compute_dtype: torch.dtype | None, offload: OffloadPolicy
) -> None:
    if isinstance(model, FSDPModule):
        return
    if not all(is_plain(layer) for _, layer in adapted_layers(cast(Module, model.backbone))):
        raise ValueError("only LoRA adapters can be merged from shards; take peft=lora or rslora, or trainer=ddp")
    if model.router_loss:
        raise ValueError("router_loss has not been shown to go with FSDP2; set it to 0, or take trainer=ddp")
    mesh = data_parallel(mesh)
    reduced_in = torch.promote_types(model.backbone.dtype, torch.float32)
    backbone_policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=reduced_in)
    backbone = cast(Module, model.backbone)
    for name in model.architecture.head:
        fully_shard(backbone.get_submodule(name), mesh=mesh, mp_policy=MixedPrecisionPolicy(), offload_policy=offload)
    for layer in backbone.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            fully_shard(cast(Module, layer), mesh=mesh, mp_policy=backbone_policy, offload_policy=offload)
    fully_shard(model, mesh=mesh, mp_policy=backbone_policy, offload_policy=offload)


def shard_part(part: Module, mesh: DeviceMesh, cpu_offload: bool = False) -> None:
    """Shard in place, in float32, what a method trains beside the reward model; a sharded part is left as it is.

    Args:
        part: with its weights on every rank; it must be used by calling it.
        mesh: as in `shard`.
        cpu_offload: as in `shard`.
    """
    if not isinstance(part, FSDPModule):
        policy = MixedPrecisionPolicy()
        fully_shard(part, mesh=data_parallel(mesh), mp_policy=policy, offload_policy=_where(cpu_offload))


def _where(cpu_offload: bool) -> OffloadPolicy:
    return CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if cpu_offload else OffloadPolicy()


def _device_of(mesh: DeviceMesh) -> torch.device:
    """Return this rank's device."""
    return torch.device("cuda", torch.cuda.current_device()) if mesh.device_type == "cuda" else torch.device("cpu")


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
