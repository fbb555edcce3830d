"""Ordinal regression of preferences: how far one response is preferred, on a scale whose thresholds are learned.

A pair has a level z, a whole number from -K (rejected is much better) over 0 (a tie) to K, and the difference d of its
rewards. With thresholds 0 < t_1 < ... < t_K, symmetric about 0 since the names of the responses say nothing,

    P(z >= k) = sigmoid(d - t_k),   P(z > -k) = sigmoid(d + t_k),   k = 1 ... K,

is the proportional-odds model (McCullagh, 1980) of "Beyond Binary Preferences" (ICLR 2026). Every probability is a
difference of two neighbours: P(z = k | d) = sigmoid(d - t_k) - sigmoid(d - t_(k + 1)) rises with d up to the middle of
its two thresholds and falls after it, and P(z = -k | d) = P(z = k | -d). With K = 1 and t_1 = 0 it is Bradley-Terry.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.losses.shapes import check_one_a_pair
from lightning_rm.precision import wide


def ordinal_losses(margin: Tensor, level: Tensor, thresholds: Tensor) -> Tensor:
    """Return minus the log-likelihood of each pair's level.

    Args:
        margin: (..., P) rewards of chosen minus those of rejected.
        level: (P,) whole numbers from -K to K.
        thresholds: (K,) ascending, the first at least 0; at 0, a level of 0 is impossible.

    Returns:
        (..., P) in float32. `log(sigmoid(b) - sigmoid(a))` is computed as `log sigmoid(b) + log sigmoid(-a) +
        log(1 - exp(a - b))`, which keeps its gradient however far a margin is from its level.
    """
    check_one_a_pair(margin, level=level)
    margin, edges = wide(margin), _edges(wide(thresholds))
    place = (level + len(thresholds)).long()
    low, high = edges[place], edges[place + 1]
    return -(
        F.logsigmoid(margin - low) + F.logsigmoid(high - margin) + torch.log(-torch.expm1(low - high))  # at infinity 0
    )


def all_threshold_losses(margin: Tensor, level: Tensor, thresholds: Tensor) -> Tensor:
    """Return the all-threshold loss: a Bradley-Terry loss at each of the 2K thresholds (Rennie and Srebro, 2005).

    Args:
        margin: (..., P) rewards of chosen minus those of rejected.
        level: (P,) whole numbers from -K to K.
        thresholds: (K,) ascending, at least 0.

    Returns:
        (..., P) in float32: the sum over thresholds t of `softplus(t - d)` where the level is above t, else of
        `softplus(d - t)`.
    """
    check_one_a_pair(margin, level=level)
    margin, num_levels = wide(margin), len(thresholds)
    inner = _edges(wide(thresholds))[1:-1]
    above = torch.arange(-num_levels, num_levels, device=level.device) < level[:, None]  # thresholds below the level
    distance = margin[..., None] - inner
    return F.softplus(torch.where(above, -distance, distance)).sum(-1)


def _edges(thresholds: Tensor) -> Tensor:
    """(2K + 2,): -infinity, -t_K ... -t_1, t_1 ... t_K, infinity: level z is between edges z + K and z + K + 1."""
    end = thresholds.new_full((1,), torch.inf)
    return torch.cat([-end, -thresholds.flip(0), thresholds, end])
