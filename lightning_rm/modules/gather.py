"""What all ranks have, of each one's part: flags, and rows with their gradient, so that a loss on one rank reaches the
features that another rank computed.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import Function

from lightning_rm.batch import PreferenceBatch


def world_size() -> int:
    """Return the number of ranks; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's place among the ranks; 0 where nothing is distributed."""
    return dist.get_rank() if world_size() > 1 else 0


def on_every_rank(flags: Tensor) -> Tensor:
    """Tell whether flags are set on every rank."""
    if world_size() == 1:
        return flags
    numbers = flags.float()
    dist.all_reduce(numbers, dist.ReduceOp.MIN)
    return numbers.bool()


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all ranks in order of rank, and where this rank's begin.

    Ranks may have different numbers of rows. The gradient of what comes back is summed over ranks: with a loss that is
    a mean over each rank's own rows, and gradients averaged over ranks as data-parallel training does, every rank
    steps on the gradient of one process that had all rows.

    Args:
        rows: (n, ...) this rank's rows.

    Returns:
        (N, ...) all rows, N the sum of every rank's n, and the index of this rank's first.
    """
    if world_size() == 1:
        return rows, 0
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    sizes = [int(size) for size in counts]
    gathered = cast(Tensor, _Gather.apply(rows, sizes))
    return gathered, sum(sizes[: rank()])


def over_ranks(batch: PreferenceBatch, *columns: Tensor) -> list[Tensor]:
    """Return the rows of a training batch's columns on all ranks, fillers left out: for a loss that looks over a batch.

    Such a loss is computed on every rank alike, and its gradient is that of one process which had all pairs.

    Args:
        batch: this rank's pairs.
        *columns: (P, ...) each, a row a pair.
    """
    num_kept = 0 if batch.is_filler else batch.num_pairs
    return [gather_rows(column[:num_kept])[0] for column in columns]


class _Gather(Function):
    """All-gather of ragged rows; its gradient is the sum of all ranks' gradients, cut to this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        start = sum(ctx.sizes[: dist.get_rank()])
        return grad[start : start + ctx.sizes[dist.get_rank()]], None
