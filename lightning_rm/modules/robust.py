"""`RobustRM`: two plain answers to wrong labels, to compare voters with: trim the largest losses, or bound the loss."""

from __future__ import annotations

import math

from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers, is_number
from lightning_rm.losses import PairLoss, list_shares, ranking_losses, trimmed_weight
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.gather import over_ranks
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import RANKING_TARGETS, Target


class RobustRM(PairwiseRM):
    """The ranking loss without the pairs of the largest losses, or with a loss that is bounded.

    The trimmed loss leaves a share of each micro-batch out, over all ranks, once a model has learned what is plausible
    (Shen and Sanghavi, arXiv 1810.11874); the share is about that of the wrong labels. The sigmoid loss is symmetric:
    labels turned round at random do not move its minimum. Labels, margins and weights are the batch's.

    Args:
        model, optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        loss: `logistic` or `sigmoid`.
        trim: the share of the pairs of the largest losses that is left out, from 0 to below 1.
        trim_after: optimizer steps before pairs are left out.

    Raises:
        ValueError: if `trim` is out of its range, or `trim_after` below 0.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        loss: PairLoss = "logistic",
        trim: float = 0.0,
        trim_after: int = 0,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        if not (is_number(trim) and 0 <= trim < 1):
            raise ValueError(f"trim={trim} is the share of pairs that is left out; give a number from 0 to below 1")
        check_numbers(0, trim_after=trim_after)
        self.loss: PairLoss = loss
        self.trim = trim
        self.trim_after = trim_after

    @property
    def reads(self) -> frozenset[Target]:
        """Labels, target margins and weights."""
        return RANKING_TARGETS

    @property
    def looks_over(self) -> int:
        """How many pairs it takes for one to be left out."""
        return math.ceil(1 / self.trim - 1e-9) if self.trim else 1

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the mean loss of the pairs that are kept, and their share."""
        plain = ranking_losses(output.chosen, output.rejected, batch.label, batch.margin, loss=self.loss)
        losses = plain * batch.weight
        if not self.trim:
            return {"loss": losses.mean(), "ranking": losses.mean()}
        if self.global_step < self.trim_after:  # its mean may be over steps of both kinds
            return {"loss": losses.mean(), "ranking": losses.mean(), "kept": losses.new_ones(())}
        # Members leave the same pairs out: those that are the least plausible, whatever they weigh.
        of_pairs = plain.detach().reshape(-1, batch.num_pairs).mean(0)
        weight = trimmed_weight(of_pairs, over_ranks(batch, of_pairs)[0], self.trim)
        ranking = (losses * weight).mean()
        kept = ((weight > 0) * list_shares(batch.group)).mean().to(ranking.dtype)
        return {"loss": ranking, "ranking": ranking, "kept": kept}
