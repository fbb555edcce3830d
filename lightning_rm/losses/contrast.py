"""Contrastive losses on two views of the same samples: SimCSE, and SwAV with its codes by Sinkhorn-Knopp.

All are computed in float32, or in float64 for float64 features, which are normalised here. This file does not know
what a sample is, how views come about or how samples of other ranks get here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.losses.shapes import check_one_a_pair
from lightning_rm.precision import wide


def simcse_loss(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.05,
    positive: Tensor | None = None,
    log_weight: Tensor | None = None,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Return the mean over samples of `-log(exp(s_ii) / sum_j exp(s_ij))`, `s_ij = cos(first_i, second_j) /
    temperature`.

    arXiv 2401.06080, eq 9; SimCSE is arXiv 2104.08821. Every sample is to find its own other view among the second
    views of all samples.

    Args:
        first: (N, H) one view of each sample.
        second: (M, H) another view of the same samples, and of others: M >= N.
        temperature: 0.05 in SimCSE; the paper names none.
        positive: (N,) long, where in `second` each sample's other view stands; None for the diagonal.
        log_weight: (N, M) the logarithm of each term's weight in the sum: 0 counts it once, `log(2)` twice, -inf leaves
            it out. None counts every term once.
        weight: (N,) weight of each sample in the mean, or a number.

    Returns:
        A float32 scalar.
    """
    logits = F.normalize(wide(first), dim=-1) @ F.normalize(wide(second), dim=-1).T / temperature
    if log_weight is not None:
        logits = logits + log_weight
    if positive is None:
        positive = torch.arange(len(first), device=first.device)
    losses = F.cross_entropy(logits, positive, reduction="none")
    check_one_a_pair(losses, weight=weight)
    return (losses * weight).mean()


def swav_loss(
    first_scores: Tensor,
    second_scores: Tensor,
    first_codes: Tensor,
    second_codes: Tensor,
    temperature: float = 0.1,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Return the loss of predicting each view's code from the other (arXiv 2401.06080, eq 7 and 8; SwAV: 2006.09882).

    It is the mean over samples of `-sum_k q_s^k log p_t^k - sum_k q_t^k log p_s^k`, with
    `p = softmax(scores / temperature)`.

    Args:
        first_scores: (N, K) cosines of one view's features with K prototypes.
        second_scores: (N, K) the same of the other view.
        first_codes: (N, K) codes of the first view, from `sinkhorn`: they carry no gradient.
        second_codes: (N, K) codes of the second view.
        temperature: 0.1 in SwAV.
        weight: (N,) weight of each sample in the mean, or a number.

    Returns:
        A float32 scalar.
    """
    first = F.cross_entropy(wide(first_scores) / temperature, second_codes.detach(), reduction="none")
    second = F.cross_entropy(wide(second_scores) / temperature, first_codes.detach(), reduction="none")
    check_one_a_pair(first, weight=weight)
    return ((first + second) * weight).mean()


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3, counted: Tensor | None = None) -> Tensor:
    """Return codes: an assignment of samples to prototypes that uses all prototypes alike (SwAV, arXiv 2006.09882, eq
    3-5).

    The columns and then the rows of `exp(scores / epsilon)` are brought to equal sums, again and again. Logarithms are
    added in place of products, so that a small epsilon neither overflows nor empties a column.

    Args:
        scores: (N, K) cosines of all samples, of all ranks, with K prototypes.
        epsilon: how soft the assignment is; 0.05 in SwAV.
        iterations: 3 in SwAV. The last step is on rows: columns are even only in the limit.
        counted: (N,) bool, the samples that take part; None for all.

    Returns:
        (N, K) float32 without a gradient. Every row sums to 1, every column to about N / K; rows that take no part are
        0, and the codes of the others are as if these were not there.
    """
    log_codes = wide(scores) / epsilon
    left_out = None if counted is None else ~counted[:, None]
    for _ in range(iterations):
        columns = log_codes if left_out is None else log_codes.masked_fill(left_out, -torch.inf)
        log_codes = log_codes - columns.logsumexp(0, keepdim=True)
        log_codes = log_codes - log_codes.logsumexp(1, keepdim=True)
    return log_codes.exp() if left_out is None else log_codes.exp().masked_fill(left_out, 0)
