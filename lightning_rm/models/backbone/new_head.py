"""A head that was drawn because a checkpoint brought none, remembered until training changes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_rm.models.backbone.partitions import has_partition, whole_of


class NewHead(NamedTuple):
    """A head as it was drawn.

    Args:
        origin: the checkpoint that brought none.
        drawn: its parameters then, whole and on the CPU.
    """

    origin: str
    drawn: list[Tensor]

    @classmethod
    def of(cls, origin: str, parameters: Iterable[nn.Parameter]) -> Self:
        """Remember a head as it is now."""
        return cls(origin, _copies(parameters))

    def is_still(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Tell whether a head has the values that were drawn."""
        return all(torch.equal(*both) for both in zip(self.drawn, _copies(parameters), strict=True))


def _copies(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Parameters as they are now, gathered where they are sharded: then all ranks call this alike."""
    return [_whole(value).detach().cpu().clone() for value in parameters]


def _whole(value: Tensor) -> Tensor:
    if isinstance(value, DTensor):
        return value.full_tensor()
    return whole_of(value) if has_partition(value) else value
