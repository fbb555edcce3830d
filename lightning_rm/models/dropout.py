"""Dropout of our own, for backbones that ship with none: on the embeddings, or on the features that the head reads."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_rm.models.protocol import AnyRewardModel

DropoutAt = Literal["embeddings", "features"]

_PROBABILITY = "added_dropout"
"""The attribute of an embedding module that says how much of it is dropped; where it stands, a hook reads it."""


def add_dropout(model: AnyRewardModel, at: DropoutAt | None, probability: float) -> None:
    """Give a reward model dropout in training; its weights, its evaluation and its export stay as they are.

    `embeddings`: whatever stands above them differs between two forwards. `features`: only what the head, and a
    contrast, reads. The model keeps it, whatever trains it next, until this is called again: one place takes the
    place of another, and None takes it away.

    Args:
        model: changed in place; of an ensemble every member.
        at: where.
        probability: of a number to be dropped; the paper's is 0.05 (arXiv 2401.06080, section B.2).

    Raises:
        ValueError: for another place or an impossible probability.
    """
    if not 0 <= probability < 1:
        raise ValueError(f"dropout={probability}: a probability from 0 to below 1 is wanted")
    if at is not None and at not in get_args(DropoutAt):
        raise ValueError(f"dropout_at={at!r}: say 'embeddings' or 'features'")
    for plain in model.plain_models:
        plain.feature_dropout = nn.Dropout(probability) if at == "features" else nn.Identity()
        embeddings = plain.backbone.get_input_embeddings()
        if at == "embeddings" and not hasattr(embeddings, _PROBABILITY):
            embeddings.register_forward_hook(_dropped)
        if at == "embeddings" or hasattr(embeddings, _PROBABILITY):
            setattr(embeddings, _PROBABILITY, probability if at == "embeddings" else 0.0)


def _dropped(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """A hook that a copy of the model has too, with its own probability."""
    return F.dropout(output, float(getattr(module, _PROBABILITY)), module.training)
