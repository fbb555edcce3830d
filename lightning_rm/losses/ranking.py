"""Losses on rewards and on next tokens: pure functions of tensors.

Every loss is computed through logits, in float32, or in float64 for float64 rewards. `-log(sigmoid(d))`,
`-log(sigmoid(d) + 1e-5)` and `log(1 + exp(-d))` overflow or lose their gradient beyond `|d|` = 20 and are used nowhere.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.losses.shapes import check_alike, check_one_a_pair
from lightning_rm.options import check_words
from lightning_rm.precision import wide

PairLoss = Literal["logistic", "sigmoid"]


def ranking_loss(
    chosen: Tensor,
    rejected: Tensor,
    label: Tensor | float = 1.0,
    margin: Tensor | float = 0.0,
    weight: Tensor | float = 1.0,
    loss: PairLoss = "logistic",
) -> Tensor:
    """Return the Bradley-Terry loss with a soft label and a target margin: one loss for every treatment of a pair.

    Binary cross-entropy of `chosen - rejected - margin` against `label` (arXiv 2401.06080, eq 2; with a margin eq 6,
    its bracket put right; with `label = 1 - alpha` the label smoothing of eq 5; with `label = 0` the flip of 2.4.1).

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        label: probability that chosen is preferred, (P,) or a number; for members also (M, P). A label outside [0, 1]
            gives the noise-corrected loss of `strength.noise_corrected`.
        margin: target margin, (P,) or a number; for members also (M, P).
        weight: weight of each pair, (P,) or a number; for members also (M, P). The mean is over pairs: a weight of 2
            counts a pair's loss twice.
        loss: as in `ranking_losses`.

    Returns:
        A float32 scalar: the mean over the pairs (and members) of the weighted loss.

    Raises:
        ValueError: if an argument would broadcast P pairs to P x P, or there is no such loss.
    """
    return ranking_losses(chosen, rejected, label, margin, weight, loss).mean()


def ranking_losses(
    chosen: Tensor,
    rejected: Tensor,
    label: Tensor | float = 1.0,
    margin: Tensor | float = 0.0,
    weight: Tensor | float = 1.0,
    loss: PairLoss = "logistic",
) -> Tensor:
    """Return the loss of each pair; `ranking_loss` is their mean.

    Args:
        chosen: as there.
        rejected: as there.
        label: as there.
        margin: as there.
        weight: as there.
        loss: `logistic`, or `sigmoid`: `l sigmoid(-z) + (1 - l) sigmoid(z)`, z the margin-shifted logit. That is
            symmetric: the losses of a label and of its contrary add up to 1, so a share of labels turned round at
            random moves no minimum (Ghosh et al., arXiv 1712.09482; for preferences SymPO, arXiv 2505.24709).

    Returns:
        (..., P) in float32, each pair's weighted loss.

    Raises:
        ValueError: if an argument would broadcast P pairs to P x P, or there is no such loss.
    """
    check_words(get_args(PairLoss), loss=loss)
    chosen, rejected = wide(chosen), wide(rejected)
    check_alike(chosen, rejected)
    targets = [torch.as_tensor(value, dtype=chosen.dtype, device=chosen.device) for value in (label, margin, weight)]
    label_, margin_, weight_ = targets
    check_one_a_pair(chosen, label=label_, margin=margin_, weight=weight_)
    logit = chosen - rejected - margin_
    if loss == "sigmoid":
        return (label_ * (-logit).sigmoid() + (1 - label_) * logit.sigmoid()) * weight_
    return F.binary_cross_entropy_with_logits(logit, label_.expand_as(logit), reduction="none") * weight_


def trimmed_weight(losses: Tensor, of_all: Tensor, share: float) -> Tensor:
    """Return weights that leave out the pairs of the largest losses: those that a model finds the least plausible.

    Args:
        losses: (P,) of some pairs.
        of_all: (N,) of all pairs that are compared, these among them.
        share: of the N that is left out, rounded down.

    Returns:
        (P,) without gradient: 0, or N over the number that is kept, so that a mean over all is one over those kept.
    """
    of_all = of_all.detach()
    num_kept = len(of_all) - int(share * len(of_all) + 1e-9)  # .29 of 100 is 28.999999999999996
    largest = of_all.sort().values[num_kept - 1]
    kept = of_all <= largest
    return (losses.detach() <= largest) * (len(of_all) / kept.sum().to(losses.dtype))


def distillation_loss(chosen: Tensor, rejected: Tensor, strength: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Return the mean square of `chosen - rejected - strength`: one model learns the mean margin of many.

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        strength: (P,) mean of the voters' margins (arXiv 2401.06080, eq 4).
        weight: weight of each pair, (P,) or a number.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: if an argument would broadcast P pairs to P x P.
    """
    check_alike(chosen, rejected)
    check_one_a_pair(chosen, strength=strength, weight=weight)
    return (weight * (wide(chosen) - wide(rejected) - wide(strength)).square()).mean()


def centering_loss(chosen: Tensor, rejected: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Return the mean of `(r_c + r_r)^2`: pulls rewards towards zero mean (Eisenstein et al., arXiv 2312.09244).

    Args:
        chosen: (..., P) rewards of the chosen responses.
        rejected: (..., P) rewards of the rejected responses.
        weight: weight of each pair in the mean, (P,) or a number.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: if an argument would broadcast P pairs to P x P.
    """
    check_alike(chosen, rejected)
    check_one_a_pair(chosen, weight=weight)
    squares = (wide(chosen) + wide(rejected)).square()
    return (squares * torch.as_tensor(weight, dtype=squares.dtype, device=squares.device)).mean()


def batch_centering_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the square of the mean reward of a batch: batch sum-to-zero (Hong et al., arXiv 2505.07271).

    `centering_loss` pulls on every pair; this only on their mean, so that one reward may be large where another is
    small.

    Args:
        chosen: (P,) rewards of the chosen responses of the whole batch, or (P, M) of members.
        rejected: (P,) or (P, M) rewards of the rejected responses.

    Returns:
        A float32 scalar; of members the mean of theirs.

    Raises:
        ValueError: if the two are of different shapes.
    """
    check_alike(chosen, rejected)
    return ((wide(chosen) + wide(rejected)) / 2).mean(0).square().mean()


def language_model_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return next-token cross-entropy over the tokens that are asked for, in float32.

    Args:
        logits: (N, V) predictions at the position before each target.
        targets: (N,) token ids.

    Returns:
        A float32 scalar; zero (with a gradient of zero) when there are no targets.
    """
    if targets.numel() == 0:
        return wide(logits).sum() * 0.0
    return F.cross_entropy(wide(logits), targets)
