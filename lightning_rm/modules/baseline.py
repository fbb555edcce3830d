"""`BaselineRM`: the Bradley-Terry reward model, with the options that the field trains it with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from torch import Tensor, nn

from lightning_rm.batch import GroupBatch, PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers, is_number
from lightning_rm.losses import (
    batch_centering_loss,
    centering_loss,
    correlation,
    list_shares,
    plackett_luce_loss,
    ranking_loss,
)
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.gather import over_ranks
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import LABELS_AND_WEIGHTS, RANKING_TARGETS, Target, TrainPairs
from lightning_rm.options import check_words
from lightning_rm.precision import wide

ListLoss = Literal["pairs", "plackett_luce"]


class BaselineRM(PairwiseRM):
    """Minimise `-log sigmoid(r_chosen - r_rejected)` (arXiv 2401.06080, eq 2), in float32 by logsigmoid.

    A label or weight column in the data is honoured as it stands: without one, labels and weights are 1.

    Args:
        model, optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        margin_scale: times the data's `margin` column is the target margin; 0 leaves the column unread.
        centering: weight of the mean of `(r_chosen + r_rejected)^2`; 0.01 is usual.
        lm_loss: weight of the next-token loss on chosen responses, a mean over their tokens; needs a model that kept
            its LM head.
        list_loss: of k ranked responses, `pairs`: the mean over all of their pairs (arXiv 2203.02155, eq 1), or
            `plackett_luce`: the likelihood of their order, which reads no label and no margin.
        batch_centering: weight of the square of a micro-batch's mean reward, over all ranks (batch sum-to-zero, arXiv
            2505.07271); from 1e-4 to 1e-2 there.
        length_penalty: weight of the size of the correlation of a micro-batch's rewards with the lengths of its
            responses, over all ranks.

    Raises:
        ValueError: for another `list_loss`, or one that would leave margins unread, or a weight below 0.
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
        list_loss: ListLoss = "pairs",
        batch_centering: float = 0.0,
        length_penalty: float = 0.0,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        check_numbers(
            0, centering=centering, lm_loss=lm_loss, batch_centering=batch_centering, length_penalty=length_penalty
        )
        if not is_number(margin_scale):
            raise ValueError(f"margin_scale={margin_scale!r}; give a number, 0 for none")
        self.margin_scale = margin_scale
        self.centering = centering
        self.lm_loss = lm_loss
        check_words(get_args(ListLoss), list_loss=list_loss)
        if list_loss == "plackett_luce" and margin_scale:
            raise ValueError(f"list_loss=plackett_luce reads no margins; set margin_scale=0, not {margin_scale}")
        self.list_loss: ListLoss = list_loss
        self.batch_centering = batch_centering
        self.length_penalty = length_penalty
        self._feature_norm_std: Tensor | None = None

    @property
    def reads(self) -> frozenset[Target]:
        """Weights, labels but for `plackett_luce`, and margins where `margin_scale` is not 0."""
        if self.list_loss == "plackett_luce":
            return frozenset({"weight"})
        return RANKING_TARGETS if self.margin_scale else LABELS_AND_WEIGHTS

    @property
    def looks_over(self) -> int:
        """Two pairs for a penalty on lengths: over the responses of one a correlation is 1 in size in any case."""
        return 2 if self.length_penalty else 1

    def check_pairs(self, pairs: TrainPairs) -> None:
        """Check the training pairs.

        Raises:
            ValueError: if ties are kept, and `plackett_luce` would take them for an order.
        """
        super().check_pairs(pairs)
        ties = (pairs.targets().label == 0.5) & ~pairs.single
        if self.list_loss == "plackett_luce" and (tied := int(ties.sum())):
            raise ValueError(
                f"{tied:,} training pairs are ties, and list_loss=plackett_luce has no place for them in an order: set "
                "data.ties=drop, which leaves tied responses unranked against each other, or list_loss=pairs"
            )

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Return nothing where a kept LM head is trained."""
        return iter(()) if self.lm_loss else super().idle_parameters()

    def forward(self, batch: PreferenceBatch | GroupBatch) -> RewardOutput:
        """Return rewards (2, P) and features (2, P, H); every hidden state too while the LM loss is trained."""
        return self.model(batch.tokens, keep_hidden=self.training and self.lm_loss > 0)

    def diagnostics(self) -> dict[str, Tensor]:
        """Return, with batch centering, the spread of the lengths of features, which it is to hold down (arXiv
        2505.07271).
        """
        return {} if self._feature_norm_std is None else {"feature_norm_std": self._feature_norm_std}

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the ranking loss, and each option that is on as a part of its own."""
        chosen, rejected = output.chosen, output.rejected
        if self.list_loss == "plackett_luce":
            loss = plackett_luce_loss(chosen, rejected, batch.group, batch.side[0], batch.weight)
        else:
            loss = ranking_loss(chosen, rejected, batch.label, self.margin_scale * batch.margin, batch.weight)
        parts = {"ranking": loss}
        if self.centering:
            parts["centering"] = centering_loss(chosen, rejected, list_shares(batch.group))
            loss = loss + self.centering * parts["centering"]
        if self.batch_centering:
            norms = wide(output.feature.detach()).norm(dim=-1)
            *both, norms = over_ranks(batch, chosen.movedim(-1, 0), rejected.movedim(-1, 0), norms.movedim(1, 0))
            parts["batch_centering"] = batch_centering_loss(*both)
            self._feature_norm_std = norms.std()
            loss = loss + self.batch_centering * parts["batch_centering"]
        if self.length_penalty:
            reward, length = over_ranks(batch, output.reward.movedim(-1, 0), batch.length.T)
            parts["length_correlation_size"] = correlation(reward.flatten(0, 1), length.flatten()).abs().mean()
            loss = loss + self.length_penalty * parts["length_correlation_size"]
        if self.lm_loss:
            parts["lm"] = batch.text_share * self.model.lm_loss(output, batch.tokens)
            loss = loss + self.lm_loss * parts["lm"]
        return {"loss": loss, **parts}
