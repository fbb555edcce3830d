"""How features lie in space: whether views agree, and whether the space is used or has collapsed. Pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.precision import wide


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared distance of a sample's two views on the unit sphere; 0 if they agree (arXiv 2005.10242).

    Args:
        first: (N, H) one view.
        second: (N, H) the other view.
    """
    return (F.normalize(wide(first), dim=-1) - F.normalize(wide(second), dim=-1)).square().sum(-1).mean()


def uniformity(feature: Tensor) -> Tensor:
    """Return `log mean_{i != j} exp(-2 |x_i - x_j|^2)` on the unit sphere: 0 if all points are the same, lower the
    wider they spread.

    arXiv 2005.10242.

    Args:
        feature: (N, H), N at least 2.
    """
    points = F.normalize(wide(feature), dim=-1)
    squares = (2 - 2 * points @ points.T).clamp(min=0)
    others = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    return (-2 * squares[others]).exp().mean().log()


def effective_rank(feature: Tensor) -> Tensor:
    """Say how many directions the features take: exp of the entropy of their normalised singular values.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007, of the features less their mean. It lies between 1, a line,
    and min(N - 1, H); NaN if all features are equal.

    Args:
        feature: (N, H).
    """
    centred = wide(feature) - wide(feature).mean(0)
    share = torch.linalg.svdvals(centred)
    share = share / share.sum()
    return torch.special.entr(share).sum().exp()


def usage_entropy(share: Tensor) -> Tensor:
    """Say how evenly prototypes are used: 1 if all alike, 0 if one takes all.

    Args:
        share: (N, K) each sample's assignment to K prototypes, rows that sum to 1.
    """
    used = wide(share).mean(0)
    return torch.special.entr(used).sum() / torch.tensor(float(len(used))).log()
