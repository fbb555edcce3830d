"""Losses: pure functions of tensors. They know no model, no batch and no configuration."""

from lightning_rm.losses.contrast import simcse_loss, sinkhorn, swav_loss
from lightning_rm.losses.difference import difference_loss
from lightning_rm.losses.lists import plackett_luce_loss
from lightning_rm.losses.ranking import centering_loss, distillation_loss, language_model_loss, ranking_loss

__all__ = [
    "centering_loss",
    "difference_loss",
    "distillation_loss",
    "language_model_loss",
    "plackett_luce_loss",
    "ranking_loss",
    "simcse_loss",
    "sinkhorn",
    "swav_loss",
]
