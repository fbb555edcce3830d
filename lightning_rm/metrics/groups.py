"""Metrics of a reward model over groups of responses to one prompt: sums over groups, on all ranks, one division.

Policies of later rounds answer alike, and a reward model that cannot tell their answers apart has no use for them:
`difference` says how far apart it puts them, the metrics of gold rewards whether it does so rightly. The mathematics is
`group_statistics` and `summarize_groups`, two pure functions; `GroupMetrics` adds them up. This file knows rewards and
a `GroupBatch`; it knows no model and no logger.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_rm.batch import GroupBatch
from lightning_rm.precision import widest


class GroupSums(NamedTuple):
    """What is added up over groups: each field is (G,) for G groups, a scalar once summed.

    A metric's field is the numerator of its mean, and `MEANS` names the denominator's. Groups that are not counted, or
    whose gold rewards are not known, add 0.
    """

    groups: Tensor
    difference: Tensor
    difference_loss: Tensor
    spread: Tensor
    gold_groups: Tensor
    gold_responses: Tensor
    gold: Tensor
    best_of_k: Tensor
    best_possible: Tensor
    gold_pairs: Tensor
    gold_accuracy: Tensor
    ranked_groups: Tensor
    gold_correlation: Tensor


MEANS = {
    "difference": "groups",
    "difference_loss": "groups",
    "spread": "groups",
    "gold": "gold_responses",
    "best_of_k": "gold_groups",
    "best_possible": "gold_groups",
    "gold_accuracy": "gold_pairs",
    "gold_correlation": "ranked_groups",
}
"""Metric -> the field that counts what it is the mean of."""


def group_statistics(rewards: Tensor, present: Tensor, gold: Tensor) -> GroupSums:
    """Return what each group adds to the sums, in float64.

    Args:
        rewards: (k, G) rewards; any value where no response is present.
        present: (k, G) bool, whether there is such a response.
        gold: (k, G) gold rewards, NaN where nobody knows.

    Returns:
        `GroupSums` of (G,) fields; `GroupMetrics` explains each. A group of fewer than two responses has
        nothing to compare and adds 0 everywhere, to `groups` too.
    """
    wide = widest(rewards.device)
    size = present.sum(0).to(wide)  # each group's own k
    counted = size > 1
    rewards = torch.where(present, rewards.detach().to(wide), 0.0)
    gold = torch.where(present, gold.to(wide), 0.0)
    known = counted & ~gold.isnan().any(0)

    higher = torch.ones(len(present), len(present), dtype=torch.bool, device=rewards.device).triu(1)
    pairs = present[:, None] & present[None] & higher[..., None]  # (k, k, G): i < j
    reward_gap = rewards[:, None] - rewards[None]
    distance = torch.where(pairs, reward_gap.abs(), 0.0)
    difference = distance.sum((0, 1)) / pairs.sum((0, 1))
    closeness = torch.where(pairs, distance.sigmoid(), 0.0)
    deviation = torch.where(present, rewards - rewards.sum(0) / size, 0.0)

    gold_gap = gold[:, None] - gold[None]
    decided = pairs & (gold_gap != 0) & known
    credit = 0.5 + 0.5 * reward_gap.sign() * gold_gap.sign()
    best = present & (rewards == torch.where(present, rewards, -torch.inf).amax(0))
    ranked = known & (torch.where(pairs, gold_gap.abs(), 0.0).sum((0, 1)) > 0)

    def where(group: Tensor, value: Tensor) -> Tensor:
        return torch.where(group, value, 0.0)

    return GroupSums(
        groups=counted.to(wide),
        difference=where(counted, difference),
        difference_loss=where(counted, 2 / size.square() * closeness.sum((0, 1))),
        spread=where(counted, (deviation.square().sum(0) / size).sqrt()),
        gold_groups=known.to(wide),
        gold_responses=where(known, size),
        gold=where(known, gold.sum(0)),
        best_of_k=where(known, torch.where(best, gold, 0.0).sum(0) / best.sum(0)),
        best_possible=where(known, torch.where(present, gold, -torch.inf).amax(0)),
        gold_pairs=decided.sum((0, 1)).to(wide),
        gold_accuracy=torch.where(decided, _diverged(credit, reward_gap), 0.0).sum((0, 1)),
        ranked_groups=ranked.to(wide),
        gold_correlation=where(ranked, _diverged(_rank_correlation(rewards, gold, present), rewards.sum(0))),
    )


def summarize_groups(sums: GroupSums) -> dict[str, Tensor]:
    """Return the metrics, from the sums over all groups; `GroupMetrics` explains each.

    Args:
        sums: scalars.

    Returns:
        Float64 scalars by name; a mean of nothing is left out.
    """
    fields = sums._asdict()
    means = {name: fields[name] / fields[count] for name, count in MEANS.items() if fields[count] > 0}
    return {**means, "num_groups": sums.groups}


def group_metric_names() -> set[str]:
    """Return the names that `GroupMetrics` gives where gold rewards are known."""
    return {*MEANS, "num_groups"}


class GroupMetrics(Metric):
    """Every metric of a reward model on one data set of groups of responses, exact over all groups of all ranks.

    `compute` gives float64 scalars:

    - `difference`: mean over groups of the mean distance `|r_i - r_j|` of two rewards, over a group's pairs i < j.
    - `difference_loss`: mean over groups of MetaRM's J (arXiv 2401.06080, eq 11), `2 / k^2 * sum_{i<j} sigmoid(|r_i -
      r_j|)`, k the group's own size: from (k - 1) / 2k for equal rewards to below (k - 1) / k.
    - `spread`: mean over groups of the population standard deviation of a group's rewards.
    - `gold_accuracy`: of two responses of a group with different gold rewards, how often the rewards order them as gold
      does; a tie of rewards counts 1/2. All such pairs count alike.
    - `gold_correlation`: mean over groups of Spearman's rank correlation of rewards with gold; ties share their mean
      rank. Groups of equal gold are left out; equal rewards under unequal gold correlate 0.
    - `best_of_k`: mean over groups of the gold reward of the response with the highest reward; tied ones share.
    - `best_possible`: mean over groups of the highest gold reward.
    - `gold`: mean gold reward of all responses.
    - `num_groups`: the groups counted. Those with `valid` False and those of fewer than two responses are not.

    Gold is known of a group when it is known of all its responses. A metric that has no data is absent; before the
    first update there is `num_groups` alone, 0. Rewards of NaN make the metrics NaN.

    One `GroupMetrics` serves one data set. Every rank needs at least one update before `compute`; a batch of groups
    that are not valid will do.

    Args:
        **kwargs: handed to `torchmetrics.Metric`.

    Shapes: the state is (num_statistics,), in float64 from the first update on. `update` moves nothing between devices
    and waits for nothing.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Widened by the first update: Apple's GPUs, which the state may be moved to before it, have no float64.
        self.add_state("sums", torch.zeros(len(GroupSums._fields)), dist_reduce_fx="sum")

    def update(self, rewards: Tensor, batch: GroupBatch) -> None:
        """Add a batch of groups.

        Args:
            rewards: (k, G) rewards.
            batch: the groups; `present`, `gold` and `valid` are read.

        Raises:
            ValueError: if rewards are not (k, G).
        """
        if rewards.shape != batch.present.shape:
            raise ValueError(
                f"group metrics need one reward a response, {tuple(batch.present.shape)}; got {tuple(rewards.shape)} "
                "(average the members of an ensemble first)"
            )
        columns = torch.stack(group_statistics(rewards, batch.present, batch.gold))
        columns = torch.where(batch.valid, columns, 0.0)
        # Not in place, so that a state made under inference_mode can go on outside it; `.to` because a module
        # moved to bfloat16 takes its (zero) metric states along.
        self.sums = self.sums.to(columns.dtype) + columns.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Return every metric by name, as listed above."""
        return summarize_groups(GroupSums._make(self.sums))


def _rank_correlation(first: Tensor, second: Tensor, present: Tensor) -> Tensor:
    """Return (G,), Spearman's correlation of two (k, G) columns over the responses present; 0 where one is constant."""
    first, second = (_centred_ranks(values, present) for values in (first, second))
    spread = (first.square().sum(0) * second.square().sum(0)).sqrt()
    return torch.where(spread > 0, (first * second).sum(0) / spread, 0.0)


def _centred_ranks(values: Tensor, present: Tensor) -> Tensor:
    """Return (k, G), ranks among the responses present, less their mean, 0 elsewhere: `5 7 7` gives `-1 .5 .5`."""
    # Half of how many are below less how many are above: no rounding, so that equal values have exactly 0.
    below = (values[:, None] - values[None]).sign()
    ranks = torch.where(present[None], below, 0.0).sum(1) / 2
    return torch.where(present, ranks, 0.0)


def _diverged(value: Tensor, rewards: Tensor) -> Tensor:
    """Return `value`, or NaN where the rewards it comes from are: a model that has diverged orders nothing."""
    return torch.where(rewards.isnan(), rewards, value)
