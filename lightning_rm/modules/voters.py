"""`VotersRM`: M voters on one backbone, trained together in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.counts import check_numbers, given
from lightning_rm.losses import first_rows, list_shares, ranking_loss
from lightning_rm.models.ensembles.bootstrap import bootstrap_weights
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.optimization import OptimizerFactory, SchedulerFactory


class VotersRM(PairwiseRM):
    """The baseline's loss for every member (arXiv 2401.06080, eq 2), each on a bootstrap sample of its own.

    Members of one backbone would agree too much on one sample: each gets Poisson(1) weights of the pairs, one for all
    pairs of a list. Metrics are those of the mean over members. Adapters train at the backbone's learning rate, heads
    at `head_lr`. Each member's gradient is divided by M: Adam's steps do not change by that, but
    `trainer.gradient_clip_val` is of the gradient of all members together, and clips each of them as much as the
    noisiest one calls for.

    Args:
        model: the members.
        optimizer, scheduler, head_lr, max_skipped, spike_factor: as in `PairwiseRM`.
        bootstrap: whether members have bootstrap weights of their own.
        seed: of the weights.
        co_teaching_after: optimizer steps after which each member trains on the pairs alone whose label the mean of the
            other members finds plausible (co-teaching, arXiv 1804.06872, with more than two); None for all pairs.

    Raises:
        ValueError: if the model has no members, or `co_teaching_after` is below 0.
    """

    def __init__(
        self,
        model: AnyRewardModel,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head_lr: float | None = None,
        bootstrap: bool = True,
        seed: int = 0,
        co_teaching_after: int | None = None,
        max_skipped: int = 10,
        spike_factor: float | None = 10.0,
    ) -> None:
        super().__init__(model, optimizer, scheduler, head_lr, max_skipped, spike_factor)
        if model.num_rewards == 1:
            raise ValueError(
                "voters on one backbone are two members or more: set members=heads or members=lora, or module=baseline"
            )
        check_numbers(0, **given(co_teaching_after=co_teaching_after))
        self.num_members = model.num_members
        self.bootstrap = bootstrap
        self.seed = seed
        self.co_teaching_after = co_teaching_after

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        """Return the mean over members of each member's ranking loss on its sample."""
        weight = batch.weight
        if self.bootstrap:
            rows = first_rows(batch.row, batch.group)  # a list is drawn whole, as `resample=bootstrap` draws it
            weight = weight * bootstrap_weights(rows, self.num_members, self.seed)
        margin = output.chosen - output.rejected
        shares = list_shares(batch.group).to(margin.dtype)
        parts = {"vote_std": (margin.std(0, correction=0) * shares).mean()}
        if self.co_teaching_after is not None:
            plausible = plausible_to_others(margin, batch.label)
            parts["plausible"] = (plausible * shares).mean()  # before it counts too: a log is a mean over many steps
            if self.global_step >= self.co_teaching_after:
                weight = weight * plausible
        loss = ranking_loss(output.chosen, output.rejected, batch.label, weight=weight)
        return {"loss": loss, "ranking": loss, **parts}


@torch.no_grad()
def plausible_to_others(margin: Tensor, label: Tensor) -> Tensor:
    """Tell whether the mean margin of the other members is on the label's side, for each member and pair.

    Margins 3, -1 and -1 of a pair with the label 1: the others' means are -1, 1 and 1, so the first member leaves it
    out and the others train on it. A label of 1/2 has no side and stays.

    Args:
        margin: (M, P) of chosen over rejected.
        label: (P,) probability that chosen is preferred.

    Returns:
        (M, P), 1 or 0.
    """
    others = (margin.sum(0) - margin) / (len(margin) - 1)
    side = (label - 0.5).sign()
    return ((others * side > 0) | (side == 0)).to(margin.dtype)
