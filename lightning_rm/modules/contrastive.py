"""`ContrastiveRM`: ranks pairs and contrasts two views of what the head reads, SimCSE's way or SwAV's."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.models.dropout import DropoutAt, add_dropout
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.zero import ZeroStrategy
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrast import SwAV
from lightning_rm.modules.contrasted import ContrastFactory
from lightning_rm.modules.objective import Objective, RankingViews
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import RANKING_TARGETS, Target


class ContrastiveRM(PairwiseRM):
    """Minimise `L_rm + beta L_cl` (arXiv 2401.06080, section 3.1, eq 7-9).

    The ranking loss is on the targets of the batch, so that every treatment of preference strength combines with every
    contrast. In training each batch is seen in two views, two dropout masks: it costs two forwards.

    Args:
        model, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        optimizer: from parameter groups to an optimizer; what the contrast learns is in it, at the head's rate.
        contrast: from the size of a feature to a contrast: `functools.partial(SimCSE, samples="responses")`.
        beta: the contrast's weight.
        ranking_views: `both`, or `first` to rank by one view alone.
        dropout_at: where a dropout of ours makes views, beside the backbone's own: `embeddings`, `features` or None.
        dropout: its probability.
        distill: weight of the regression of margins on strengths; ranking has `1 - distill`.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`.

    Raises:
        ValueError: if an option is out of its range; in the first step, if both views are equal.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        contrast: ContrastFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        beta: float = 1.0,
        ranking_views: RankingViews = "both",
        dropout_at: DropoutAt | None = None,
        dropout: float = 0.05,
        distill: float = 0.0,
        centering: float = 0.0,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        if not callable(contrast):
            raise ValueError("ContrastiveRM needs something to contrast by: contrast=simcse or contrast=swav")
        if model.num_rewards > 1:
            raise ValueError(
                "a contrast is of one reward model's features: leave out the members (~members), or set module=voters"
            )
        if dropout_at is not None:
            add_dropout(model, dropout_at, dropout)
        self.objective = Objective(model.hidden_size, contrast, beta, ranking_views, distill, centering)

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (2, P) and features (2, P, H); in training (2, 2, P) and (2, 2, P, H), of two views."""
        return self.objective.output(self.model, batch)

    @property
    def reads(self) -> frozenset[Target]:
        """Labels, target margins and weights."""
        return RANKING_TARGETS

    @property
    def needs_strengths(self) -> bool:
        """Whether strengths are distilled."""
        return self.objective.distill > 0

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the ranking loss on the pairs' targets, and the contrast of the features."""
        return self.objective(batch, output)

    def diagnostics(self) -> dict[str, Tensor]:
        """Return alignment, uniformity and effective rank of the last samples, and how evenly prototypes are used."""
        return self.objective.geometry()

    def on_fit_start(self) -> None:
        """Begin anew.

        Raises:
            ValueError: under DeepSpeed, where prototypes would be trained that are to be frozen.
        """
        self.objective.start()
        contrast = self.objective.contrast
        if isinstance(self.trainer.strategy, ZeroStrategy) and isinstance(contrast, SwAV) and contrast.frozen:
            raise ValueError(
                f"contrast.frozen={contrast.frozen} forgets the gradient of prototypes, which DeepSpeed keeps to "
                "itself: set contrast.frozen=0, or take trainer=ddp or fsdp2"
            )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Drop the gradient of frozen prototypes, before gradients are clipped."""
        self.objective.before_step(self.global_step, self.trainer.estimated_stepping_batches)
        super().on_before_optimizer_step(optimizer)
