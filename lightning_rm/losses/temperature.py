"""The temperature that makes given margins as likely as scale alone can; it knows margins and labels, no model."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

LIMITS = (1e-3, 1e3)
"""Bounds of the temperature: where all margins are right the likelihood has no maximum and grows as T goes to 0."""


def fit_temperature(margin: Tensor, label: Tensor) -> float:
    """Return the T of least mean cross-entropy of `label` against `sigmoid(margin / T)` (arXiv 1706.04599, section
    4.2).

    In 1 / T the loss is convex, so that bisecting its slope finds the minimum. Fit it on validation pairs, never on
    those that are reported.

    Args:
        margin: (P,) reward of chosen minus reward of rejected.
        label: (P,) probability that chosen is preferred.

    Returns:
        T within `LIMITS`: the lower one where all margins are right, the upper one where they say the opposite.

    Raises:
        ValueError: if there are no pairs, or a margin is not finite.
    """
    margin, label = margin.detach().double(), label.detach().double()
    if not len(margin) or not bool(margin.isfinite().all()):
        raise ValueError(f"no temperature of {len(margin)} pairs: give at least one, with finite rewards")
    low, high = (math.log(1 / limit) for limit in reversed(LIMITS))
    for _ in range(60):
        middle = (low + high) / 2
        slope = (margin * ((margin * math.exp(middle)).sigmoid() - label)).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def is_limit(temperature: float) -> bool:
    """Tell whether a fitted temperature is one of `LIMITS`: no scale is the best one for such margins."""
    return any(math.isclose(temperature, limit, rel_tol=1e-6) for limit in LIMITS)


def why_none(margin: Tensor, label: Tensor) -> str:
    """Say why margins have no temperature within `LIMITS`, where `fit_temperature` has come to one of them.

    Args:
        margin: (P,) reward of chosen minus reward of rejected.
        label: (P,) probability that chosen is preferred.
    """
    towards = margin.double() * (label.double() - 0.5)
    if not bool((towards > 0).any()) or float(towards.mean()) <= 0:
        return "no better than chance"
    return "all right" if bool((towards >= 0).all()) else "on a scale too far from 1"


class Best(NamedTuple):
    """The temperature of margins, or why they have none.

    Args:
        temperature: within `LIMITS`; None where no scale is the best one.
        why_none: in words; empty where there is one.
    """

    temperature: float | None
    why_none: str = ""


def best_temperature(margin: Tensor, label: Tensor) -> Best:
    """Return what `fit_temperature` finds, or why it finds none within `LIMITS`.

    Args:
        margin: (P,) reward of chosen minus reward of rejected.
        label: (P,) probability that chosen is preferred.

    Raises:
        ValueError: as `fit_temperature`.
    """
    found = fit_temperature(margin, label)
    return Best(None, why_none(margin, label)) if is_limit(found) else Best(found)


def tempered_nll(margin: Tensor, label: Tensor, temperature: float) -> float:
    """Return mean cross-entropy of `label` against `sigmoid(margin / temperature)`, in nats.

    Args:
        margin: (P,) reward of chosen minus reward of rejected.
        label: (P,) probability that chosen is preferred.
        temperature: from `fit_temperature`.
    """
    return float(F.binary_cross_entropy_with_logits(margin.double() / temperature, label.double()))
