"""`ResponseRankRM`: pairs ranked by their strength, of which only the order counts."""

from __future__ import annotations

from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_counts
from lightning_rm.losses import list_parts, list_shares, response_rank_loss, spread_groups
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.gather import over_ranks
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory
from lightning_rm.modules.requirements import Target


class ResponseRankRM(PairwiseRM):
    """ResponseRank (arXiv 2512.25023): in groups of pairs, margins are ranked as strengths are, above a margin of 0.

    Where a target margin trusts the size of a strength and needs a scale, this trusts its order alone. The pairs of a
    micro-batch, over all ranks, are dealt into groups whose strengths lie far apart. A pair counts as its label has it:
    one that is turned round has its strength negated. The side that a label takes is read, not how sure it is of it;
    weights are the batch's, and margins are not read. A tie is ranked below stronger pairs and not above 0.

    Args:
        model, optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        group_size: pairs that are ranked together; 1 is Bradley-Terry. The paper has 2 to 8.

    Raises:
        ValueError: if `group_size` is below 1, or the model gives several rewards.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        group_size: int = 8,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        check_counts(1, group_size=group_size)
        if model.num_rewards != 1:
            raise ValueError("module=response_rank trains one model, without members")
        self.group_size = group_size

    @property
    def needs_strengths(self) -> bool:
        """Whether there is anything to rank by."""
        return self.group_size > 1

    @property
    def reads(self) -> frozenset[Target]:
        """The side that a label takes, and weights."""
        return frozenset({"label", "weight"})

    @property
    def looks_over(self) -> int:
        """How many pairs are ranked together."""
        return self.group_size

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the ranking of the micro-batch's groups."""
        side = 1.0 - 2.0 * (batch.label < 0.5)
        # Without its share among the lists of this rank: it gets the one that it has among those of all.
        weight = batch.weight * (batch.label != 0.5) / list_shares(batch.group)
        margin, strength, weight, part = over_ranks(
            batch,
            side * (output.chosen - output.rejected),
            side * batch.strength,
            weight,
            list_parts(batch.group),
        )
        weight = (weight * part * (len(part) / part.sum())).to(margin.dtype)
        loss = response_rank_loss(margin, strength, spread_groups(strength, self.group_size), weight)
        return {"loss": loss, "ranking": loss}
