"""Metrics of reward models over preference pairs: sums over pairs, on all ranks, and one division at the end.

The mean of batch means is not the mean: 11 right of 11, then 1 right of 2 in the last batch, give 0.75 where 12 of 13
pairs are right, 0.923. Nothing here averages before the end, so an uneven last batch, another batch size or
another number of ranks changes no digit. The mathematics is `pair_statistics` and `summarize`, two pure functions;
`batch_statistics` reads a batch for them, and `PairMetrics` adds it up. This file knows rewards and a
`PreferenceBatch`; it knows no model and no logger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_rm.batch import PreferenceBatch
from lightning_rm.precision import widest


class Sums(NamedTuple):
    """What is added up over pairs: each field is (P,) for P pairs, a scalar once summed; `gap` has bins in a last axis.

    Rewards and lengths are summed over both responses of a pair. `sided` counts labels that take a side (not 1/2).
    """

    pairs: Tensor
    sided: Tensor
    correct: Tensor
    length_correct: Tensor
    tied: Tensor
    clean_sided: Tensor
    clean_correct: Tensor
    nll: Tensor
    brier: Tensor
    margin: Tensor
    margin_square: Tensor
    reward: Tensor
    reward_square: Tensor
    length: Tensor
    length_square: Tensor
    reward_length: Tensor
    gap: Tensor

    def stack(self) -> Tensor:
        """Return (..., num_fields - 1 + bins): every field as columns of one tensor, so that one all-reduce carries
        them.
        """
        return torch.cat([torch.stack(self[:-1], dim=-1), self.gap], dim=-1)

    @classmethod
    def unstack(cls, columns: Tensor) -> Sums:
        """Return the inverse of `stack`."""
        num_scalars = len(cls._fields) - 1
        return cls._make([*columns[..., :num_scalars].unbind(-1), columns[..., num_scalars:]])


def pair_statistics(
    chosen: Tensor, rejected: Tensor, label: Tensor, clean: Tensor, length: Tensor, num_bins: int = 10
) -> Sums:
    """Return what each pair adds to the sums, in float64.

    Args:
        chosen: (P,) rewards of the chosen responses.
        rejected: (P,) rewards of the rejected responses.
        label: (P,) probability that chosen is preferred.
        clean: (P,) the true label, NaN where nobody knows.
        length: (2, P) tokens of each response.
        num_bins: equal bins of confidence on [1/2, 1].

    Returns:
        `Sums` of (P,) fields. `gap[p, b]` is, for a pair in bin b, the probability its label gives to the response
        that the rewards prefer, minus the confidence of the rewards, `sigmoid(|margin|)`; 0 in other bins.
    """
    wide = widest(chosen.device)
    chosen, rejected, label, clean, length = (x.detach().to(wide) for x in (chosen, rejected, label, clean, length))
    margin = chosen - rejected
    confidence = margin.abs().sigmoid()
    bins = ((confidence - 0.5) * 2 * num_bins).long().clamp(0, num_bins - 1)
    in_bin = bins[:, None] == torch.arange(num_bins, device=margin.device)
    gap = 0.5 + margin.sign() * (label - 0.5) - confidence
    return Sums(
        pairs=torch.ones_like(margin),
        sided=_takes_side(label).to(wide),
        correct=_credit(margin, label),
        length_correct=_credit(length[0] - length[1], label),
        tied=(margin == 0).to(wide),
        clean_sided=_takes_side(clean).to(wide),
        clean_correct=_credit(margin, clean),
        nll=F.binary_cross_entropy_with_logits(margin, label, reduction="none"),
        brier=(margin.sigmoid() - label).square(),
        margin=margin,
        margin_square=margin.square(),
        reward=chosen + rejected,
        reward_square=chosen.square() + rejected.square(),
        length=length.sum(0),
        length_square=length.square().sum(0),
        reward_length=chosen * length[0] + rejected * length[1],
        gap=gap[:, None] * in_bin,
    )


def batch_statistics(chosen: Tensor, rejected: Tensor, batch: PreferenceBatch, num_bins: int = 10) -> Tensor:
    """Return what each pair of a batch adds to the sums, `Sums` as columns: fillers, whose `valid` is False, add 0.

    Args:
        chosen: (P,) rewards of the chosen responses.
        rejected: (P,) rewards of the rejected responses.
        batch: the pairs; `label`, `clean`, `length` and `valid` are read. A label that the correction of a loss took
            beyond [0, 1] (`strength.noise_corrected`) is not a probability; the nearer end stands for it.
        num_bins: bins of the calibration error.

    Returns:
        (P, num_statistics) in float64, for `Sums.unstack`.

    Raises:
        ValueError: if rewards are not (P,).
    """
    if not chosen.shape == rejected.shape == batch.label.shape:
        raise ValueError(
            f"metrics need one reward a pair, {tuple(batch.label.shape)}; got {tuple(chosen.shape)} for chosen and "
            f"{tuple(rejected.shape)} for rejected (average the members of an ensemble first)"
        )
    columns = pair_statistics(chosen, rejected, batch.label.clamp(0, 1), batch.clean, batch.length, num_bins).stack()
    return torch.where(batch.valid[:, None], columns, 0.0)


def summarize(sums: Sums) -> dict[str, Tensor]:
    """Return the metrics, from the sums over all pairs; `PairMetrics` explains each.

    Args:
        sums: scalars, and `gap` (bins,).

    Returns:
        Float64 scalars by name.
    """
    pairs, responses = sums.pairs, 2 * sums.pairs
    margin_mean, margin_variance = _moments(sums.margin, sums.margin_square, pairs)
    reward_mean, reward_variance = _moments(sums.reward, sums.reward_square, responses)
    length_mean, length_variance = _moments(sums.length, sums.length_square, responses)
    covariance = sums.reward_length / responses - reward_mean * length_mean
    spread = (reward_variance * length_variance).sqrt()
    metrics = {
        "accuracy": sums.correct / sums.sided,
        "tie_rate": sums.tied / pairs,
        "nll": sums.nll / pairs,
        "brier": sums.brier / pairs,
        "calibration_error": sums.gap.abs().sum() / pairs,
        "margin": margin_mean,
        "margin_std": margin_variance.sqrt(),
        "reward_mean": reward_mean,
        "reward_std": reward_variance.sqrt(),
        "length_correlation": torch.where(spread > 0, covariance / spread, torch.nan).clamp(-1, 1),
        "length_accuracy": sums.length_correct / sums.sided,
        "num_pairs": pairs,
    }
    return metrics | ({"clean_accuracy": sums.clean_correct / sums.clean_sided} if sums.clean_sided > 0 else {})


def metric_names() -> set[str]:
    """Return the names that `PairMetrics` gives, those of subsets left out."""
    nothing = Sums.unstack(torch.zeros(len(Sums._fields)))
    return {*summarize(nothing), "clean_accuracy"}


class PairMetrics(Metric):
    """Every metric of a reward model on one data set of preference pairs, exact over all pairs of all ranks.

    `compute` gives float64 scalars:

    - `accuracy`: share of pairs whose margin agrees with the label; a tie of rewards counts 1/2. Pairs whose label is
      exactly 1/2 take no side and are left out.
    - `clean_accuracy`: the same against `clean`, over the pairs where it is known; the key is absent where none is.
    - `length_accuracy`: the same of the length-only baseline, which prefers the longer response.
    - `tie_rate`: share of pairs with equal rewards.
    - `nll`: cross-entropy of the label against `sigmoid(margin)`, in nats. Target margins play no part.
    - `brier`: mean square of `sigmoid(margin) - label`.
    - `calibration_error`: expected calibration error (Guo et al., arXiv 1706.04599, eq 3), folded: the confidence
      `max(p, 1 - p)` in equal bins on [1/2, 1] against how often the preferred response is right. Unfolded, with a
      target of 1 for every chosen-first pair, it would measure `1 - mean(p)`. A soft label is right with its
      probability, so that rewards which give `p = label` are calibrated.
    - `margin`, `margin_std`, `reward_mean`, `reward_std`: mean and population standard deviation, of rewards over both
      responses.
    - `length_correlation`: Pearson's correlation of reward with response length in tokens, over both responses.
    - `num_pairs`: the pairs counted; those with `valid` False are not.

    With more than one subset name, each also as `<subset>/<name>` for every subset that holds a pair. A metric of no
    pairs, and a correlation where one side is constant, is NaN; so are all means before the first update, with
    `num_pairs` 0.

    One `PairMetrics` serves one data set until it is reset: the first batch fixes the subset names. Every rank needs at
    least one update before `compute`; a batch of pairs that are not valid will do.

    Args:
        num_bins: bins of the calibration error.
        **kwargs: handed to `torchmetrics.Metric`.

    Shapes: the state is (num_subsets, num_statistics), in float64 from the first update on. `update` moves nothing
    between devices and waits for nothing.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # `forward` then holds a batch's subset names against those of the whole

    sums: Tensor

    def __init__(self, num_bins: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_bins = num_bins
        self.subset_names: tuple[str, ...] = ()
        # Widened by the first update: Apple's GPUs, which the state may be moved to before it, have no float64.
        self.add_state("sums", torch.zeros(1, len(Sums._fields) - 1 + num_bins), dist_reduce_fx="sum")

    def update(self, chosen: Tensor, rejected: Tensor, batch: PreferenceBatch) -> None:
        """Add a batch of pairs.

        Args:
            chosen: (P,) rewards of the chosen responses.
            rejected: (P,) rewards of the rejected responses.
            batch: the pairs; `label`, `clean`, `length`, `subset`, `valid` and `subset_names` are read.

        Raises:
            ValueError: if rewards are not (P,), or the subset names are not those of the first batch.
        """
        columns = batch_statistics(chosen, rejected, batch, self.num_bins)
        if not self.subset_names:
            self.subset_names = batch.subset_names
            zeros = columns.new_zeros(len(batch.subset_names), columns.shape[1])
            self.add_state("sums", zeros, dist_reduce_fx="sum")  # now, and after a reset
        elif batch.subset_names != self.subset_names:
            raise ValueError(
                f"the subsets of this batch are {batch.subset_names}, those of the first were {self.subset_names}; "
                "make one PairMetrics for each data set, or reset it in between"
            )
        # Not in place, so that a state made under inference_mode can go on outside it; `.to` because a module
        # moved to bfloat16 takes its (zero) metric states along.
        self.sums = self.sums.to(columns.dtype).index_add(0, batch.subset, columns)

    def reset(self) -> None:
        """Forget all pairs, and the subset names with them: the next batch may be of another data set."""
        super().reset()
        self.subset_names = ()

    def compute(self) -> dict[str, Tensor]:
        """Return every metric by name, as listed above."""
        metrics = summarize(Sums.unstack(self.sums.sum(0)))
        if len(self.subset_names) > 1:
            for name, row in zip(self.subset_names, self.sums, strict=True):
                subset = Sums.unstack(row)
                if subset.pairs > 0:
                    metrics |= {f"{name}/{key}": value for key, value in summarize(subset).items()}
        return metrics


def _takes_side(target: Tensor) -> Tensor:
    """Return (P,) bool: whether the target prefers one response; 1/2 and NaN (unknown) do not."""
    return (target < 0.5) | (target > 0.5)


def _credit(difference: Tensor, target: Tensor) -> Tensor:
    """Return (P,), 1 where the difference prefers what the target prefers, 1/2 where it is 0, else 0; 0 without a side.

    A difference of NaN stays NaN: a model that has diverged has no accuracy.
    """
    credit = 0.5 + 0.5 * difference.sign() * (target - 0.5).sign()
    return torch.where(_takes_side(target), torch.where(difference.isnan(), difference, credit), 0.0)


def _moments(total: Tensor, total_square: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population variance from float64 sums; a variance within the sums' rounding, of equal values, is
    0.
    """
    mean, mean_square = total / count, total_square / count
    variance = mean_square - mean.square()
    rounding = count * torch.finfo(mean_square.dtype).eps * mean_square
    return mean, torch.where(variance <= rounding, 0.0, variance)
