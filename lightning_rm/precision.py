"""The number type that sums are made in. This file knows devices, and nothing of what is summed."""

from __future__ import annotations

import torch


def widest(device: torch.device) -> torch.dtype:
    """Float64, but on Apple's GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64
