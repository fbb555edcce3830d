"""Weights that stay on the disk until the model is sharded: then every rank reads its own part of them.

A model that one device cannot hold cannot stand whole on each rank's host either: 70B in float32 are 280 GB, eight
times over on a node. So the backbone is made without memory (torch's meta device), sharded, and given memory for its
shards alone. It knows files of safetensors and shards along the first dimension; no trainer.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from lightning_rm.checksums import check_weights
from lightning_rm.models.backbone.contexts import seeded
from lightning_rm.told import object_in, read_object

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class Unread:
    """Weights on the disk.

    Args:
        origin: what errors call them.
        files: tensor -> its file.
    """

    origin: str
    files: dict[str, str]

    @classmethod
    def at(cls, path: str, origin: str) -> Unread:
        """Find the files of a folder or a hub name.

        Raises:
            ValueError: if there are none in safetensors.
        """
        missing: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
        if (index := cached_file(path, INDEX, **missing)) is not None:
            told = object_in(read_object(Path(index)), "weight_map", index)
            files, _ = get_checkpoint_shard_files(path, index)
            by_name = {Path(file).name: str(file) for file in cast("list[str]", files)}
            return cls(origin, {name: by_name[Path(file).name] for name, file in told.items()})
        if (file := cached_file(path, WHOLE, **missing)) is not None:
            found = cls(origin, {})
            with found._opened(file) as opened:
                found.files.update(dict.fromkeys(opened.keys(), file))
            return found
        raise ValueError(f"{origin}: load_sharded reads safetensors, and there are none; save the model as such first")

    @contextmanager
    def _opened(self, file: str) -> Generator[Any]:
        """Open a file of weights.

        Raises:
            ValueError: if it is not there, or damaged.
        """
        try:
            with safe_open(file, "pt") as opened:
                yield opened
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{self.origin}: the weights cannot be read: {file}: {error}") from error

    def key(self, name: str, prefix: str) -> str | None:
        """Return a parameter's name in the files: a base model's have no prefix, an adapted layer's no `base_layer`."""
        plain = name.replace(".base_layer.", ".")
        return next((key for key in (plain, plain.removeprefix(f"{prefix}.")) if key in self.files), None)

    def missing(self, backbone: PreTrainedModel) -> set[str]:
        """Return the parameters of a backbone that the files do not have, by name.

        Raises:
            ValueError: if it has weights that are no parameters, or one that stands under two names.
        """
        names = {name for name, _ in cast(nn.Module, backbone).named_parameters()}
        if unknown := sorted(cast(nn.Module, backbone).state_dict().keys() - names):
            raise ValueError(
                f"{self.origin}: load_sharded reads parameters, each by one name, and {backbone.config.model_type} has "
                f"{unknown[0]}, which is another's twin or no parameter; leave load_sharded out"
            )
        return {name for name in names if self.key(name, backbone.base_model_prefix) is None}

    def others(self, backbone: PreTrainedModel) -> set[str]:
        """Return what the files have and a backbone does not read, by name; without buffers that older versions of
        transformers wrote.
        """
        names = (name for name, _ in cast(nn.Module, backbone).named_parameters())
        read = {self.key(name, backbone.base_model_prefix) for name in names}
        ignored: set[str] = set(backbone._keys_to_ignore_on_load_unexpected or ()) | {"inv_freq"}  # pyright: ignore[reportPrivateUsage]
        return {key for key in self.files.keys() - read if not any(re.search(part, key) for part in ignored)}

    def part(self, name: str, prefix: str, start: int, end: int) -> Tensor:
        """Return rows of a parameter; no other is read."""
        key = cast(str, self.key(name, prefix))
        with self._opened(self.files[key]) as file:
            return file.get_slice(key)[start:end]


@torch.no_grad()
def read_shards(backbone: PreTrainedModel, unread: Unread, device: torch.device) -> None:
    """Give a backbone without memory its weights; of a sharded one each rank reads its own shards.

    Args:
        backbone: on the meta device, but for what the files do not have; sharded along first dimensions or not at all.
        unread: where its weights are.
        device: of the shards.

    Raises:
        ValueError: if the files have other shapes, or other bytes than their checksums say.
    """
    module = cast(nn.Module, backbone)
    folders = sorted({Path(file).parent for file in unread.files.values()})
    for folder in folders:
        check_weights(folder, part=(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1))
    waiting = {name for name, parameter in module.named_parameters() if parameter.is_meta}

    def placed(value: Tensor) -> Tensor:
        return torch.empty_like(value, device=device) if value.is_meta else value.to(device)

    module._apply(placed)  # pyright: ignore[reportPrivateUsage]  # what `to` and `to_empty` call, each for one of these
    with seeded(0):
        for part in module.modules():
            if (
                next(part.buffers(recurse=False), None) is not None
            ):  # which no file has: computed from the configuration
                backbone._init_weights(part)  # pyright: ignore[reportPrivateUsage]  # as `from_pretrained` has them
    for name, parameter in module.named_parameters():
        if name in waiting:
            start, end = rows_of(parameter)
            read = unread.part(name, backbone.base_model_prefix, start, end)
            own = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            if read.shape != own.shape:
                raise ValueError(f"{unread.origin}: {name} has another shape than its configuration says")
            own.copy_(read)


def rows_of(parameter: Tensor) -> tuple[int, int]:
    """Return which rows of a parameter this rank holds: torch.chunk's part, as FSDP2 has it; all of a whole one."""
    if not isinstance(parameter, DTensor):
        return 0, parameter.shape[0]
    (placement,) = parameter.placements
    assert isinstance(placement, Shard)
    assert placement.dim == 0
    rows, mesh = parameter.shape[0], parameter.device_mesh
    size = -(-rows // mesh.size())
    return min(mesh.get_local_rank() * size, rows), min((mesh.get_local_rank() + 1) * size, rows)


def empty(backbone: PreTrainedModel) -> None:
    """Let no parameter have memory: some classes draw theirs on the CPU, whatever device they are built on."""
    for module, name, parameter in _parameters(backbone):
        if not parameter.is_meta:
            module.register_parameter(name, nn.Parameter(parameter.to("meta"), parameter.requires_grad))


@contextmanager
def stood_in(backbone: PreTrainedModel) -> Generator[None]:
    """Let every parameter without memory be one number on the CPU, seen from everywhere, for the time of the block.

    So adapters are drawn where they are real: peft moves them to the device of the layer that they stand beside.
    """
    waiting: list[nn.Parameter] = []
    for module, name, parameter in _parameters(backbone):
        if parameter.is_meta:
            one = torch.zeros(1, dtype=parameter.dtype).expand(parameter.shape)
            waiting.append(nn.Parameter(one, parameter.requires_grad))
            module.register_parameter(name, waiting[-1])
    try:
        yield
    finally:
        for module, name, parameter in _parameters(backbone):
            if any(parameter is stand_in for stand_in in waiting):
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                module.register_parameter(name, nn.Parameter(empty, parameter.requires_grad))


def _parameters(backbone: PreTrainedModel) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Return each parameter with the module that has it and its name there."""
    modules = cast(nn.Module, backbone).modules()
    return [(module, *named) for module in modules for named in module.named_parameters(recurse=False)]
