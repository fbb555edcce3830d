"""`OdinRM`: a second head takes what length explains of the preferences, and is left out of the export."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers
from lightning_rm.losses import correlation, ranking_loss
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.gather import over_ranks
from lightning_rm.modules.linear_head import LinearHead, linear_head, whole
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import RANKING_TARGETS, Target


class OdinRM(PairwiseRM):
    """ODIN (arXiv 2402.07319): two linear heads on one feature, of quality and of length.

    The ranking loss is on the sum of both rewards. The length head's reward is to go with the number of tokens and the
    quality head's is not: `|rho(quality, length)| - rho(length head, length)`, Pearson's correlations over the
    responses of a micro-batch of all ranks; and the heads' weights are to be orthogonal. What is measured, exported and
    served is the quality head.

    Args:
        model: the reward model; its head is that of quality.
        optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        length_weight: of the correlations.
        orthogonal_weight: of the size of the cosine of the two heads.
        seed: of the length head's weights.

    Raises:
        ValueError: if the model's head is not one linear map, or a weight is below 0.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        length_weight: float = 1.0,
        orthogonal_weight: float = 1.0,
        seed: int = 0,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        linear_head(model, "module=odin")
        check_numbers(0, length_weight=length_weight, orthogonal_weight=orthogonal_weight)
        self.length_head = LinearHead(model.hidden_size, seed=seed)
        self.length_weight = length_weight
        self.orthogonal_weight = orthogonal_weight

    @property
    def reads(self) -> frozenset[Target]:
        """Labels, target margins and weights."""
        return RANKING_TARGETS

    @property
    def looks_over(self) -> int:
        """Two pairs: a correlation over the two responses of one is 1 in size whatever they are."""
        return 2

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the ranking loss of the sum, the two correlations and the cosine of the heads."""
        of_length = self.length_head(output.feature)[..., 0]
        both = output.reward + of_length
        ranking = ranking_loss(both[0], both[1], batch.label, batch.margin, batch.weight)
        columns = over_ranks(batch, output.reward.T, of_length.T, batch.length.T)
        quality, explained, length = (column.flatten() for column in columns)
        parts = {
            "ranking": ranking,
            "quality_length_correlation": correlation(quality, length),
            "head_length_correlation": correlation(explained, length),
        }
        loss = ranking + self.length_weight * (
            parts["quality_length_correlation"].abs() - parts["head_length_correlation"]
        )
        if self.orthogonal_weight:
            with torch.autocast(output.reward.device.type, enabled=False):
                heads = (whole(linear_head(self.model, "module=odin")), whole(self.length_head.weight))
                parts["head_cosine"] = F.cosine_similarity(*(head[0] for head in heads), dim=0)
            loss = loss + self.orthogonal_weight * parts["head_cosine"].abs()
        return {"loss": loss, **parts}
