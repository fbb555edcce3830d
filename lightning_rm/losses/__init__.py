"""Losses: pure functions of tensors. They know no model, no batch and no configuration."""

from lightning_rm.losses.contrast import simcse_loss, sinkhorn, swav_loss
from lightning_rm.losses.difference import difference_loss
from lightning_rm.losses.length import correlation
from lightning_rm.losses.lists import (
    first_rows,
    list_parts,
    list_shares,
    plackett_luce_loss,
    response_rank_loss,
    spread_groups,
)
from lightning_rm.losses.ordinal import all_threshold_losses, ordinal_losses
from lightning_rm.losses.ranking import (
    PairLoss,
    batch_centering_loss,
    centering_loss,
    distillation_loss,
    language_model_loss,
    ranking_loss,
    ranking_losses,
    trimmed_weight,
)

__all__ = [
    "PairLoss",
    "all_threshold_losses",
    "batch_centering_loss",
    "centering_loss",
    "correlation",
    "difference_loss",
    "distillation_loss",
    "first_rows",
    "language_model_loss",
    "list_parts",
    "list_shares",
    "ordinal_losses",
    "plackett_luce_loss",
    "ranking_loss",
    "ranking_losses",
    "response_rank_loss",
    "simcse_loss",
    "sinkhorn",
    "spread_groups",
    "swav_loss",
    "trimmed_weight",
]
