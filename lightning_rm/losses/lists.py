"""Losses on several pairs at once: lists of ranked responses, and pairs ranked by their strength. Pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.precision import wide


def plackett_luce_loss(chosen: Tensor, rejected: Tensor, group: Tensor, side: Tensor, weight: Tensor) -> Tensor:
    """The Plackett-Luce likelihood of ranked lists, of the pairs that they make (Plackett, 1975; Luce, 1959).

    Of a list with the rewards r_1, ..., r_k, best first, `-sum_i log(exp r_i / sum_{j >= i} exp r_j)` is
    `sum_i log(1 + sum_{j > i} exp(r_j - r_i))`: one term for each response that is chosen in a pair, over the pairs
    that it is chosen in. Of one pair that is the Bradley-Terry loss. Responses of one score make no pair, so a term is
    over those that are strictly worse.

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        group: (P,) the same number for pairs of one list; all pairs of a list are here.
        side: (P,) which response of its list is chosen.
        weight: (P,) weight of each pair where a list's are P / (G n) each, n its pairs and G the lists: then the loss
            is the mean over lists.

    Returns:
        A float32 scalar: the mean over P of the terms, a list's weighted by the sum of the weights of its pairs.
    """
    margin = wide(chosen) - wide(rejected)
    same_list = group[:, None] == group[None]
    same_term = same_list & (side[:, None] == side[None])
    exponents = (-margin)[..., None, :].masked_fill(~same_term, -torch.inf)
    terms = torch.logsumexp(F.pad(exponents, (1, 0)), dim=-1)  # the 0 in front is the 1 in the logarithm
    share = weight.to(margin.dtype) * same_list.sum(-1) / same_term.sum(-1)  # every pair of a term has its loss
    return (share * terms).mean()
