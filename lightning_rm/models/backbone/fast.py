"""Which layouts are worth choosing between for a backbone on this machine. It knows modules; no data."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from lightning_rm.models.attention.masks import SEGMENT_ATTENTION
from lightning_rm.models.backbone.heads import Architecture
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.tokens import LayoutName

SMALL_LAYER = 250_000
"""Weights of a layer whose tokens cost less on a CPU than the attention calls that would save them; measured on two
cores, on conversations of 40 tokens: rows of one sequence are faster up to a width of 128, shared beginnings from 192
on. A GPU attends to all segments in one call."""


def fast_layouts(backbone: PreTrainedModel, architecture: Architecture, causal: bool) -> tuple[LayoutName, ...]:
    """Return the layouts worth choosing between.

    Rows of one sequence alone for a small backbone on a machine without a GPU, and for one whose attention keeps
    several sequences of a row apart by a mask of all tokens by all tokens or not at all.
    """
    attention = backbone.config._attn_implementation  # pyright: ignore[reportPrivateUsage]
    if not architecture.packs or attention != SEGMENT_ATTENTION:
        return ("padded",)
    layer = transformer_layers(backbone)[0]
    small = sum(weight.numel() for weight in layer.parameters()) < SMALL_LAYER
    if small and not torch.accelerator.is_available():
        return ("padded",)
    return ("padded", "packed", "shared_prefix") if causal else ("padded", "packed")
