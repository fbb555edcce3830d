"""`StrengthAwareRM`: trains on what preference strength makes of the pairs: flips, soft labels, margins, weights."""

from __future__ import annotations

from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.objective import check_distill, target_losses
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import RANKING_TARGETS, Target


class StrengthAwareRM(PairwiseRM):
    """The ranking loss with the label, target margin and weight of every pair (arXiv 2401.06080, section 2.4, eq 5-6).

    The targets are the batch's: the data module's `treatments` make them of the strengths, once and of the whole
    training set, so that quantiles are exact and pairs can be left out. Metrics are measured on the labels as treated
    and on plain margins; `train/margin_accuracy` is the paper's training accuracy, of the margin-shifted logit.

    Args:
        model, optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        distill: weight of the regression of margins on the strengths (arXiv 2410.01257 compares it), beside the ranking
            loss, whose weight is `1 - distill`: 1 distils the voters alone, 0 ranks alone.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`.

    Raises:
        ValueError: if `distill` is not within [0, 1], or `centering` is below 0.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        distill: float = 0.0,
        centering: float = 0.0,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        check_distill(distill)
        check_numbers(0, centering=centering)
        self.distill = distill
        self.centering = centering

    @property
    def needs_strengths(self) -> bool:
        """Whether strengths are distilled."""
        return self.distill > 0

    @property
    def reads(self) -> frozenset[Target]:
        """Labels, target margins and weights."""
        return RANKING_TARGETS

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the ranking loss on the pairs' targets, and the options that are on as parts of their own."""
        return target_losses(batch, output, self.distill, self.centering)
