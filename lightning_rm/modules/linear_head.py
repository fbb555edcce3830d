"""A reward head that is one linear map, for methods that put others beside it. It knows weights; no loss, no batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, distribute_tensor

from lightning_rm.models.backbone.partitions import has_partition, set_whole_of, shape_of, whole_of
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.precision import wide


class LinearHead(nn.Module):
    """Rewards of A kinds from a feature, without a bias, in float32 whatever the backbone's dtype.

    Args:
        hidden_size: H.
        num_rewards: A.
        seed: of the weights, drawn as those of a new reward head: N(0, 1 / (H + 1)).
    """

    def __init__(self, hidden_size: int, num_rewards: int = 1, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(num_rewards, hidden_size, generator=generator, device="cpu")
        self.weight = nn.Parameter(drawn * (hidden_size + 1) ** -0.5)

    def forward(self, feature: Tensor) -> Tensor:
        """Map features (..., H) to predictions (..., A)."""
        with torch.autocast(feature.device.type, enabled=False):
            feature = wide(feature)
            return feature @ self.weight.to(feature.dtype).T


def linear_head(model: AnyRewardModel, asked_by: str) -> nn.Parameter:
    """Return the (1, H) weight of a model's head.

    Args:
        model: a plain reward model.
        asked_by: what needs it, for the error.

    Raises:
        ValueError: if the head is another, as an encoder's with its own pooler is.
    """
    head = list(model.head_parameters())
    if len(head) != 1 or shape_of(head[0]) != (1, model.hidden_size):
        raise ValueError(f"{asked_by} needs a head that is one linear map without a bias: a decoder's, of one model")
    return head[0]


def whole(parameter: Tensor) -> Tensor:
    """Return a parameter as one tensor, gathered where it is sharded; its gradient is then the mean over ranks, as all
    are.

    Raises:
        ValueError: if it is to have a gradient and ZeRO's stage 3 keeps it in parts, which are gathered for a module's
            own forward alone.
    """
    if has_partition(parameter):
        if torch.is_grad_enabled():
            raise ValueError(
                "this module's loss reads weights beside the forward pass that they are of, where stage 3 of ZeRO has "
                "them in parts: set trainer.strategy.stage=2"
            )
        return whole_of(parameter)
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    gathered = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)  # the sum over ranks
    return gathered.detach() + (gathered - gathered.detach()) / mesh.size()


@torch.no_grad()
def set_whole(parameter: Tensor, value: Tensor) -> None:
    """Write a whole tensor into a parameter, each rank its shard where it is sharded."""
    if has_partition(parameter):
        return set_whole_of(parameter, value)
    if isinstance(parameter, DTensor):
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
    parameter.copy_(value)
