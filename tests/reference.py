"""The paper's formulas as naive loops over Python floats. Nothing here imports the code under test."""

from __future__ import annotations

import math
from collections.abc import Sequence


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def ranking_loss(
    chosen: Sequence[float],
    rejected: Sequence[float],
    label: Sequence[float],
    margin: Sequence[float],
    weight: Sequence[float],
) -> float:
    """arXiv 2401.06080, eq 2, 5 and 6 in one: a soft label against the margin-shifted logit, averaged over pairs."""
    total = 0.0
    for c, r, p, m, w in zip(chosen, rejected, label, margin, weight, strict=True):
        z = c - r - m
        total += -w * (p * log_sigmoid(z) + (1 - p) * log_sigmoid(-z))
    return total / len(chosen)
