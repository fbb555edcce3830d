"""`BaselineRM`: the Bradley-Terry reward model, with the three options that the field trains it with."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.losses import centering_loss, ranking_loss
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory


class BaselineRM(PairwiseRM):
    """Minimise `-log sigmoid(r_chosen - r_rejected)` (arXiv 2401.06080, eq 2), in float32 by logsigmoid.

    A label or weight column in the data is honoured as it stands: without one, labels and weights are 1.

    Args:
        model: the reward model.
        optimizer: from parameter groups to an optimizer.
        scheduler: from (optimizer, number of steps) to a schedule; None keeps the learning rate.
        head_lr: the head's learning rate; None takes the optimizer's.
        margin_scale: times the data's `margin` column is the target margin; 0 leaves the column unread.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`; 0.01 is usual.
        lm_loss: weight of the next-token loss on chosen responses, a mean over their tokens; needs a model that kept
            its LM head.
        max_skipped: optimizer steps in a row that are not finite and end the run.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        margin_scale: float = 0.0,
        centering: float = 0.0,
        lm_loss: float = 0.0,
        max_skipped: int = 10,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped)
        self.margin_scale = margin_scale
        self.centering = centering
        self.lm_loss = lm_loss

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """None where a kept LM head is trained."""
        return iter(()) if self.lm_loss else super().idle_parameters()

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Rewards (2, P) and features (2, P, H); every hidden state too while the LM loss is trained."""
        return self.model(batch.tokens, keep_hidden=self.training and self.lm_loss > 0)

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """The ranking loss, and each option that is on as a part of its own."""
        loss = ranking_loss(output.chosen, output.rejected, batch.label, self.margin_scale * batch.margin, batch.weight)
        parts = {"ranking": loss}
        if self.centering:
            parts["centering"] = centering_loss(output.chosen, output.rejected)
            loss = loss + self.centering * parts["centering"]
        if self.lm_loss:
            parts["lm"] = self.model.lm_loss(output, batch.tokens)
            loss = loss + self.lm_loss * parts["lm"]
        return {"loss": loss, **parts}
