"""Bootstrap weights: each member's own sample of the pairs, without drawing one. It knows row numbers alone."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor

GOLDEN, *MIXERS = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
POISSON = [int(2**32 * below) for below in accumulate(math.exp(-1) / math.factorial(count) for count in range(11))]
"""Thresholds of a number of 32 bits: how many it reaches is a Poisson(1) count."""


def bootstrap_weights(row: Tensor, num_members: int, seed: int = 0) -> Tensor:
    """Say how often each pair stands in each member's bootstrap sample, without drawing one.

    Counts are Poisson(1) (Oza and Russell, "Online bagging and boosting", 2001) and depend on the pair's row, the
    member and the seed alone: a pair has the same in every epoch, on every rank and device.

    Args:
        row: (P,) long, `PreferenceBatch.row`.
        num_members: M.
        seed: of the draw.

    Returns:
        (M, P) float32, whole numbers: weights for a loss.
    """
    member = torch.arange(num_members, device=row.device)[:, None]
    bits = _mixed(_mixed(_mixed(torch.full_like(member, seed)) + member) + row.long())
    thresholds = torch.tensor(POISSON, device=row.device)
    return torch.bucketize(_shifted(bits, 32), thresholds, right=True).float()


def _mixed(bits: Tensor) -> Tensor:
    """SplitMix64's next number (Steele, Lea and Flood, 2014), in int64, whose sums and products wrap."""
    bits = bits + GOLDEN
    for shift, factor in zip((30, 27), MIXERS, strict=True):
        bits = (bits ^ _shifted(bits, shift)) * factor
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, shift: int) -> Tensor:
    """Return a shift to the right of 64 bits without a sign, which int64 has."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)
