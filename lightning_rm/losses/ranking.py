"""Losses on rewards and on next tokens: pure functions of tensors.

Every loss is computed in float32, of float64 rewards in float64, and through logits. `-log(sigmoid(d))`,
`-log(sigmoid(d) + 1e-5)` and `log(1 + exp(-d))` overflow or lose their gradient beyond `|d|` = 20 and are used nowhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.precision import wide


def ranking_loss(
    chosen: Tensor,
    rejected: Tensor,
    label: Tensor | float = 1.0,
    margin: Tensor | float = 0.0,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """The Bradley-Terry loss with a soft label and a target margin: one loss for every treatment of a pair.

    Binary cross-entropy of `chosen - rejected - margin` against `label` (arXiv 2401.06080, eq 2; with a margin eq 6,
    its bracket put right; with `label = 1 - alpha` the label smoothing of eq 5; with `label = 0` the flip of 2.4.1).

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        label: probability that chosen is preferred, (P,) or a number; for members also (M, P). Beyond [0, 1] it is the
            noise-corrected loss of `strength.noise_corrected`.
        margin: target margin, (P,) or a number; for members also (M, P).
        weight: weight of each pair, (P,) or a number; for members also (M, P). The mean is over pairs: a weight of 2
            counts a pair's loss twice.

    Returns:
        A float32 scalar: the mean over the pairs (and members) of the weighted loss.

    Raises:
        ValueError: if an argument would broadcast P pairs to P x P.
    """
    chosen, rejected = wide(chosen), wide(rejected)
    if chosen.shape != rejected.shape:
        raise ValueError(
            f"chosen has shape {tuple(chosen.shape)} and rejected {tuple(rejected.shape)}; they must agree"
        )
    targets = [torch.as_tensor(value, dtype=chosen.dtype, device=chosen.device) for value in (label, margin, weight)]
    for name, value in zip(("label", "margin", "weight"), targets, strict=True):
        if value.ndim and value.shape not in (chosen.shape[-1:], chosen.shape):
            raise ValueError(f"{name} has shape {tuple(value.shape)}; one value a pair has {tuple(chosen.shape[-1:])}")
    label_, margin_, weight_ = targets
    logit = chosen - rejected - margin_
    loss = F.binary_cross_entropy_with_logits(logit, label_.expand_as(logit), reduction="none")
    return (loss * weight_).mean()


def distillation_loss(chosen: Tensor, rejected: Tensor, strength: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """The mean square of `chosen - rejected - strength`: one model learns the mean margin of many.

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        strength: (P,) mean of the voters' margins (arXiv 2401.06080, eq 4).
        weight: weight of each pair, (P,) or a number.

    Returns:
        A float32 scalar.
    """
    return (weight * (wide(chosen) - wide(rejected) - wide(strength)).square()).mean()


def centering_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """The mean of `(r_c + r_r)^2`: pulls rewards towards zero mean (Eisenstein et al., arXiv 2312.09244).

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.

    Returns:
        A float32 scalar.
    """
    return (wide(chosen) + wide(rejected)).square().mean()


def language_model_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Next-token cross-entropy over the tokens that are asked for, in float32.

    Args:
        logits: (N, V) predictions at the position before each target.
        targets: (N,) token ids.

    Returns:
        A float32 scalar; zero (with a gradient of zero) when there are no targets.
    """
    if targets.numel() == 0:
        return wide(logits).sum() * 0.0
    return F.cross_entropy(wide(logits), targets)
