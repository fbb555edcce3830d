"""Whether weights are finite, asked before they are saved. It knows tensors by name, whole or sharded; no model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_rm.counts import number_of
from lightning_rm.modules.finite import DivergedError
from lightning_rm.modules.gather import on_every_rank
from lightning_rm.modules.gradients import local


def check_weights_finite(named: Iterable[tuple[str, Tensor]], num_steps: int) -> None:
    """Check every weight before it is saved; all ranks call this alike, and wait for their devices.

    Args:
        named: weights by name.
        num_steps: optimizer steps that were done.

    Raises:
        DivergedError: if one is not finite.
    """
    if name := first_not_finite(named):
        raise DivergedError(
            f"after {number_of(num_steps, 'optimizer step')} weights are not finite ({name} is the first) and are not "
            "saved. Go on from the last checkpoint or begin anew, with a lower learning rate"
        )


@torch.no_grad()
def first_not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds a number that is not finite, in any rank's part of it; else None.

    Every rank calls this with tensors of the same names.
    """
    tensors = [(name, local(tensor)) for name, tensor in named if tensor.is_floating_point()]
    if not tensors:
        return None
    device = tensors[0][1].device
    flags = torch.stack([tensor.isfinite().all().to(device) for _, tensor in tensors])
    good = on_every_rank(flags).tolist()
    return next((name for (name, _), finite in zip(tensors, good, strict=True) if not finite), None)
