"""Losses on several pairs at once: lists of ranked responses, and pairs ranked by their strength. Pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.losses.shapes import check_alike, check_one_a_pair
from lightning_rm.precision import wide, widest


def plackett_luce_loss(chosen: Tensor, rejected: Tensor, group: Tensor, side: Tensor, weight: Tensor) -> Tensor:
    """Return the Plackett-Luce loss of ranked lists, from the pairs that they make (Plackett, 1975; Luce, 1959).

    Of a list with the rewards r_1, ..., r_k, best first, `-sum_i log(exp r_i / sum_{j >= i} exp r_j)` is
    `sum_i log(1 + sum_{j > i} exp(r_j - r_i))`: one term for each response that is chosen in a pair, over the pairs
    that it is chosen in. Of one pair that is the Bradley-Terry loss. Responses of one score make no pair, so a term is
    over those that are strictly worse.

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        group: (P,) the same number for pairs of one list; all pairs of a list are here.
        side: (P,) which response of its list is chosen.
        weight: (P,) weight of each pair. Where each pair of a list of n has P / (G n), with G lists in all, the loss is
            the mean over lists.

    Returns:
        A float32 scalar: the mean over P of the terms, a list's weighted by the sum of the weights of its pairs.
    """
    check_alike(chosen, rejected)
    check_one_a_pair(chosen, group=group, side=side, weight=weight)
    margin = wide(chosen) - wide(rejected)
    same_list = group[:, None] == group[None]
    same_term = same_list & (side[:, None] == side[None])
    exponents = (-margin)[..., None, :].masked_fill(~same_term, -torch.inf)
    terms = torch.logsumexp(F.pad(exponents, (1, 0)), dim=-1)  # the 0 in front is the 1 in the logarithm
    share = weight.to(margin.dtype) * same_list.sum(-1) / same_term.sum(-1)  # every pair of a term has its loss
    return (share * terms).mean()


def response_rank_loss(margin: Tensor, strength: Tensor, group: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Return the loss of ResponseRank, where only the order of the strengths within a group counts (arXiv 2512.25023).

    The margins of a group's pairs, strongest first, and a margin of 0 behind them are ranked by Plackett-Luce:
    `-sum_i [d_i - log(1 + sum_{j >= i} exp d_j)]`. A group of one pair is Bradley-Terry. Pairs of one strength are not
    ranked against each other, and one without strength is ranked against 0 alone.

    Args:
        margin: (P,) reward of the preferred response minus that of the other.
        strength: (P,) of that preference, NaN where unknown.
        group: (P,) the same number for pairs whose strengths compare.
        weight: (P,) weight of each pair's term, or a number.

    Returns:
        A float32 scalar: the mean over pairs.
    """
    check_one_a_pair(margin, strength=strength, group=group, weight=weight)
    margin = wide(margin)
    weaker = (group[:, None] == group[None]) & (strength[None] < strength[:, None])
    ranked = weaker | torch.eye(len(margin), dtype=torch.bool, device=margin.device)
    exponents = margin[None].masked_fill(~ranked, -torch.inf)
    terms = torch.logsumexp(F.pad(exponents, (1, 0)), dim=-1) - margin
    return (weight * terms).mean()


def list_shares(group: Tensor) -> Tensor:
    """Return weights under which a mean over pairs is the mean over lists of the mean over their pairs.

    Of G lists with P pairs in all, each of a list's n pairs has P / (G n): a list of one pair and one of three give 2
    and 2/3 2/3 2/3. Where every pair is a list of its own, all weights are 1.

    Args:
        group: (P,) the same number for pairs of one list; all pairs of a list are here.

    Returns:
        (P,) in float64, or the widest that the device has.
    """
    parts = list_parts(group)
    return parts * (len(group) / parts.sum().round())


def list_parts(group: Tensor) -> Tensor:
    """Return which part of its list each pair is: 1 / n of one of n pairs, so that they add up to the number of lists.

    Args:
        group: as for `list_shares`.

    Returns:
        (P,) as there.
    """
    return (group[:, None] == group[None]).sum(-1).to(widest(group.device)).reciprocal()


def spread_groups(strength: Tensor, size: int) -> Tensor:
    """Deal pairs into groups of about `size` whose strengths lie far apart: neighbours in strength never meet.

    Six pairs in groups of three, by ascending strength: 0 1 0 1 0 1.

    Args:
        strength: (P,), NaN where unknown; those come last.
        size: pairs of a group.

    Returns:
        (P,) long, the group of each pair.
    """
    num_groups = max(1, len(strength) // size)
    return strength.argsort(stable=True).argsort() % num_groups


def first_rows(row: Tensor, group: Tensor) -> Tensor:
    """Return the row of each pair's list: that of its first pair, by which the list is known in every batch.

    Args:
        row: (P,) long, `PreferenceBatch.row`.
        group: as for `list_shares`.

    Returns:
        (P,) long; `row` itself where every pair is a list of its own.
    """
    return torch.where(group[:, None] == group, row, row.max()).amin(1)
