"""Dropout of our own, for backbones that ship with none: on the embeddings, or on the features that the head reads."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_rm.models.reward_model import RewardModel

DropoutAt = Literal["embeddings", "features"]


_HOOKS: WeakKeyDictionary[nn.Module, RemovableHandle] = WeakKeyDictionary()


def add_dropout(model: RewardModel, at: DropoutAt, probability: float) -> None:
    """Give a reward model dropout in training; its weights, its evaluation and its export stay as they are.

    `embeddings`: whatever stands above them differs between two forwards. `features`: only what the head, and a
    contrast, reads.

    Args:
        model: changed in place.
        at: where.
        probability: of a number to be dropped; the paper's is 0.05 (arXiv 2401.06080, section B.2).

    Raises:
        ValueError: for another place or an impossible probability.
    """
    if not 0 <= probability < 1:
        raise ValueError(f"dropout={probability}: a probability from 0 to below 1 is wanted")
    if at == "features":
        model.feature_dropout = nn.Dropout(probability)
    elif at == "embeddings":
        embeddings = model.backbone.get_input_embeddings()
        if held := _HOOKS.pop(embeddings, None):
            held.remove()  # one dropout, not one on another
        _HOOKS[embeddings] = embeddings.register_forward_hook(partial(_dropped, probability))
    else:
        raise ValueError(f"dropout_at={at!r}: say 'embeddings' or 'features'")


def _dropped(probability: float, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return F.dropout(output, probability, module.training)
