"""No loss broadcasts P pairs to P x P: a column (P, 1), as classifiers of transformers give it, is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_rm.losses.contrast import simcse_loss, swav_loss
from lightning_rm.losses.lists import plackett_luce_loss, response_rank_loss
from lightning_rm.losses.ordinal import all_threshold_losses, ordinal_losses
from lightning_rm.losses.ranking import batch_centering_loss, centering_loss, distillation_loss

ROW = torch.arange(3.0)
COLUMN = ROW[:, None]
SQUARE = torch.rand(3, 3)

LOSSES: dict[str, Callable[[], Tensor]] = {
    "rejected": lambda: distillation_loss(ROW, COLUMN, ROW),
    "strength": lambda: distillation_loss(ROW, ROW, COLUMN),
    "distillation's weight": lambda: distillation_loss(ROW, ROW, ROW, COLUMN),
    "centering's rejected": lambda: centering_loss(ROW, COLUMN),
    "centering's weight": lambda: centering_loss(ROW, ROW, COLUMN),
    "batch centering's rejected": lambda: batch_centering_loss(ROW, COLUMN),
    "simcse's weight": lambda: simcse_loss(SQUARE, SQUARE, weight=COLUMN),
    "swav's weight": lambda: swav_loss(SQUARE, SQUARE, SQUARE, SQUARE, weight=COLUMN),
    "a list's rejected": lambda: plackett_luce_loss(ROW, COLUMN, ROW, ROW, ROW),
    "a list's weight": lambda: plackett_luce_loss(ROW, ROW, ROW, ROW, COLUMN),
    "strengths that rank": lambda: response_rank_loss(ROW, COLUMN, ROW),
    "their weight": lambda: response_rank_loss(ROW, ROW, ROW, COLUMN),
    "level": lambda: ordinal_losses(ROW, COLUMN, ROW + 1),
    "level of all thresholds": lambda: all_threshold_losses(COLUMN, ROW, ROW + 1),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_would_broadcast_is_refused(loss: Callable[[], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"has shape \(3, 1\); one value a pair|has shape \(3,\).*must agree|\(1,\)"):
        loss()
