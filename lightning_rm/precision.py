"""The number types that sums, rewards and losses are made in. It knows dtypes and devices, and not what is summed."""

from __future__ import annotations

import torch
from torch import Tensor


def widest(device: torch.device) -> torch.dtype:
    """Return float64; on Apple's GPUs, which do not have it, float32."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(tensor: Tensor) -> Tensor:
    """Widen bfloat16 and float16 to float32, and leave float64 as it is.

    Rewards and losses are made in float32 whatever the backbone's dtype: near 8 a bfloat16 has steps of 1/16. Those
    of a model in float64 are in float64: there two computations that must be the same are the same to 1e-12.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
