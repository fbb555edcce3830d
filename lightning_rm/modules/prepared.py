"""What a run does to a model before it trains, and takes back after it: freezing what gets no gradient, and sharding.

It knows a model, parameters and a strategy; no batches and no losses.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn

from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.sharding import FSDP2Strategy, shard, shard_part
from lightning_rm.models.zero import ZeroStrategy
from lightning_rm.models.zero_limits import check_parts


class Frozen:
    """The parameters that a run has frozen, until it leaves them to whatever trains the model next."""

    def __init__(self) -> None:
        self._parameters: list[nn.Parameter] = []

    def add(self, parameters: Iterable[nn.Parameter]) -> None:
        """Freeze those that are trained; the others stay as they are, then and afterwards."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        self._parameters += trained

    def release(self) -> None:
        """Train them again."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._parameters = []


def shard_for(strategy: Strategy, precision: str | int, model: AnyRewardModel, method: nn.Module) -> None:
    """Shard a model in place where the strategy asks for it (FSDP2), and read the weights that are still on the disk.

    Args:
        strategy: the trainer's.
        precision: the trainer's.
        model: the reward model.
        method: which holds it; what it trains beside it is sharded too.

    Raises:
        ValueError: if a parameter is the method's own and no module's, which nothing would shard or average.
    """
    if isinstance(strategy, ModelParallelStrategy):
        if alone := [name for name, _ in method.named_parameters(recurse=False)]:
            raise ValueError(
                f"{type(method).__name__}.{alone[0]} is a parameter by itself, and FSDP2 shards modules: put it into a "
                "torch.nn.Module whose forward reads it, or take trainer=ddp"
            )
        own_parts = [part for part in method.children() if part is not model and list(part.parameters())]
        compute_dtype = torch.bfloat16 if precision == "bf16-mixed" else None
        offload = isinstance(strategy, FSDP2Strategy) and strategy.cpu_offload
        shard(model, strategy.device_mesh, compute_dtype, offload)
        for part in own_parts:
            shard_part(part, strategy.device_mesh, offload)
    if isinstance(strategy, ZeroStrategy) and strategy.stage == 3:
        check_parts(model)
    for plain in model.plain_models:
        plain.read_weights()  # whole, where nothing is sharded
