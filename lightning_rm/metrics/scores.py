"""Metrics of rewards against scores of single responses, where there is no second response to be right about.

A state of sums would do for Pearson's correlation but not for ranks, so every pair of numbers is kept: 16 bytes a
response. This file knows rewards and scores; it knows no batch, no model and no logger.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_rm.precision import widest


class ScoreMetrics(Metric):
    """How rewards go with scores, exact over all responses of all ranks.

    `compute` gives float64 scalars, NaN where one side is constant:

    - `score_correlation`: Pearson's correlation of reward and score.
    - `score_rank_correlation`: Spearman's; ties share their mean rank.
    - `num_scores`: the responses counted.

    Every rank needs at least one update before `compute`; one without a response will do.

    Args:
        **kwargs: handed to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    both: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("both", [], dist_reduce_fx="cat")

    def update(self, reward: Tensor, score: Tensor) -> None:
        """Add rewards (R,) and scores (R,); a score of NaN is one that nobody gave."""
        known = ~score.isnan()
        self.both.append(torch.stack([reward[known], score[known]], 1).detach().to(widest(reward.device)))

    def compute(self) -> dict[str, Tensor]:
        """Return every metric by name, as listed above."""
        reward, score = dim_zero_cat(self.both).unbind(1)
        return {
            "score_correlation": correlation(reward, score),
            "score_rank_correlation": correlation(ranks(reward), ranks(score)),
            "num_scores": reward.new_tensor(float(len(reward))),
        }


def score_metric_names() -> set[str]:
    """Return the names that `ScoreMetrics` gives."""
    return {"score_correlation", "score_rank_correlation", "num_scores"}


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation of two (R,) columns, NaN where one is constant."""
    first, second = first - first.mean(), second - second.mean()
    spread = (first.square().sum() * second.square().sum()).sqrt()
    return torch.where(spread > 0, (first * second).sum() / spread, torch.nan)


def ranks(values: Tensor) -> Tensor:
    """Return (R,), the rank of each value from 1 on; equal values share their mean rank, and NaN stays NaN.

    `5 7 7` gives `1 2.5 2.5`.
    """
    _, place, number = values.unique(return_inverse=True, return_counts=True)
    last = number.cumsum(0)
    rank = (last - (number - 1) / 2).to(values.dtype)[place]
    return torch.where(values.isnan(), values, rank)
