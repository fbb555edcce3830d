"""`OrdinalRM`: trains on levels of preference, ties among them, with thresholds that are learned."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_counts, check_numbers
from lightning_rm.losses import all_threshold_losses, ordinal_losses
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import Target, TrainPairs
from lightning_rm.options import check_words
from lightning_rm.precision import wide

OrdinalLoss = Literal["likelihood", "all_thresholds"]


class Thresholds(nn.Module):
    """K thresholds that stay in order whatever is learned: `t_k = t_(k - 1) + exp(a_k)`, `t_0 = 0`.

    Args:
        num_levels: K.
        ties: whether there is a level 0 between -t_1 and t_1; without, t_1 is 0.
    """

    def __init__(self, num_levels: int, ties: bool = True) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.log_step = nn.Parameter(torch.full((num_levels - (not ties),), -0.5))

    def forward(self) -> Tensor:
        """Return the thresholds (K,), ascending."""
        ends = wide(self.log_step).exp().cumsum(0)
        return torch.cat([ends.new_zeros(self.num_levels - len(ends)), ends])


class OrdinalRM(PairwiseRM):
    """Ordinal regression of preferences ("Beyond Binary Preferences", ICLR 2026; `losses.ordinal`).

    A level, -K to K, says how far chosen is preferred, 0 that neither is. The thresholds between levels are learned
    with the rewards and are not part of the exported model. `treatment=levels` makes levels of people's magnitudes or
    of voters' strengths, whose sign they have; labels and margins are not read, weights are.

    Args:
        model, optimizer, scheduler, max_skipped, spike_factor: as in `PairwiseRM`.
        head_lr: the head's and the thresholds' learning rate; None takes the optimizer's.
        num_levels: K.
        ties: whether level 0 occurs.
        loss: `likelihood`, or `all_thresholds`: a Bradley-Terry loss at every threshold.
        threshold_penalty: weight of the sum of the squares of the thresholds: rewards have no scale of their own, and
            with it they keep one.

    Raises:
        ValueError: if K is below 1, there is no such loss, or the weight is below 0.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        num_levels: int = 3,
        ties: bool = True,
        loss: OrdinalLoss = "likelihood",
        threshold_penalty: float = 0.01,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        check_counts(1, num_levels=num_levels)
        check_numbers(0, threshold_penalty=threshold_penalty)
        check_words(get_args(OrdinalLoss), loss=loss)
        self.thresholds = Thresholds(num_levels, ties)
        self.ties = ties
        self.loss: OrdinalLoss = loss
        self.threshold_penalty = threshold_penalty

    @property
    def reads(self) -> frozenset[Target]:
        """Levels and weights."""
        return frozenset({"level", "weight"})

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the mean ordinal loss, the penalty of the thresholds, and the first and the last of them."""
        thresholds = self.thresholds()
        losses = ordinal_losses if self.loss == "likelihood" else all_threshold_losses
        ordinal = (batch.weight * losses(output.chosen - output.rejected, batch.level, thresholds)).mean()
        parts = {"ordinal": ordinal, "first_threshold": thresholds[0], "last_threshold": thresholds[-1]}
        return {"loss": ordinal + self.threshold_penalty * thresholds.square().sum(), **parts}

    def check_pairs(self, pairs: TrainPairs) -> None:
        """Check the levels of the training pairs.

        Raises:
            ValueError: if a pair has none, one beyond K, or is a tie where none is meant to be.
        """
        super().check_pairs(pairs)
        level, num_levels = pairs.level, self.thresholds.num_levels
        if missing := int(np.isnan(level).sum()):
            raise ValueError(
                f"module=ordinal needs a level for every pair, and {missing:,} of {len(level):,} have none: set "
                "treatment=levels, over pairs with a strength (people's magnitudes, or lightning-rm annotate)"
            )
        if (largest := np.abs(level).max()) > num_levels:
            raise ValueError(
                f"a pair has the level {largest:g}, and module.num_levels={num_levels}: make them the same as "
                "treatment.levels.num_levels"
            )
        if not self.ties and (tied := int((level == 0).sum())):
            raise ValueError(f"{tied:,} pairs are ties, and module.ties=false has no level for them; set it to true")
