"""Aggregates: the rewards of M members as one. A pure function of a tensor."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from lightning_rm.counts import check_numbers

Aggregate = Literal["mean", "median", "worst", "mean_minus_variance"]
"""How the rewards of M members become one."""


def aggregate(reward: Tensor, how: Aggregate = "mean", lam: float = 1.0) -> Tensor:
    """Return one reward of the rewards of M members.

    `worst` is the least (WCO) and `mean_minus_variance` is mean - lam * population variance (UWO), both of Coste et al.
    (arXiv 2310.02743); `median` is Eisenstein et al.'s (arXiv 2312.09244), the mean of the middle two for an even M.

    Both conservative ones compare members' rewards with one another, so these need a common zero: see
    `RewardEnsemble.centre`.

    Args:
        reward: (..., M, P).
        how: which aggregate.
        lam: the price of variance, for `mean_minus_variance` alone.

    Returns:
        (..., P).

    Raises:
        ValueError: if there is no such aggregate, or lam is negative or not a number.
    """
    check_numbers(0, lam=lam)
    match how:
        case "mean":
            return reward.mean(-2)
        case "median":
            ordered, num_members = reward.sort(-2).values, reward.shape[-2]
            return (ordered[..., (num_members - 1) // 2, :] + ordered[..., num_members // 2, :]) / 2
        case "worst":
            return reward.amin(-2)
        case "mean_minus_variance":
            return reward.mean(-2) - lam * reward.var(-2, correction=0)
        case _:
            raise ValueError(f"how={how!r} is not an aggregate; choose one of: {', '.join(get_args(Aggregate))}")
