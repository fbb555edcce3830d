"""Clipping of gradients whose norm is known already, and of those that Lightning refuses to clip for no reason.

It knows a precision plugin and an optimizer's gradients; no model.
"""

from __future__ import annotations

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor
from torch.optim import Optimizer

from lightning_rm.models.zero_optimizer import ZeroOptimizer


def clip_gradients(
    plugin: Precision, optimizer: Optimizer, value: float | None, algorithm: str | None, norm: Tensor | None
) -> bool:
    """Clip gradients where that needs nothing of Lightning's, and tell whether it was done.

    Lightning refuses a fused optimizer wherever gradients may be scaled, and also in bfloat16, where nothing scales
    them.

    Args:
        plugin: the trainer's precision.
        optimizer: with the gradients.
        value: what they are clipped to; None or 0 for not at all.
        algorithm: `norm` or `value`; None for `norm`.
        norm: of all gradients; None where it is not known.
    """
    if isinstance(optimizer, ZeroOptimizer):  # its engine was told, and clips as it steps
        return True
    by = GradClipAlgorithmType(algorithm or "norm")
    if value and by == GradClipAlgorithmType.NORM and norm is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grads_with_norm_(parameters, value, norm)
        return True
    if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
        Precision.clip_gradients(plugin, optimizer, value or 0.0, by)
        return True
    return False
