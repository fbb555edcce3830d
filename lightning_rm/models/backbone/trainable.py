"""What of a backbone is trained: all of it, adapters in it, or its last layers; and how its backward pass keeps less.

It knows backbones, heads and adapters; not where weights come from, nor what is learned.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext

from torch import nn
from transformers import PreTrainedModel

from lightning_rm.counts import check_counts
from lightning_rm.models.backbone.adapters import Adapter, LoraAdapter, put_adapter
from lightning_rm.models.backbone.heads import Architecture, head_tensors
from lightning_rm.models.backbone.layers import parameters_before, transformer_layers
from lightning_rm.models.backbone.unread import stood_in


def make_trainable(
    backbone: PreTrainedModel,
    architecture: Architecture,
    lm_head: nn.Linear | None,
    adapter: Adapter | None,
    seed: int,
    gradient_checkpointing: bool,
    freeze_layers: int | None,
) -> None:
    """Put adapters in, drawn from a seed, or freeze layers, and turn checkpointing on, where asked; adapters freeze the
    LM head.
    """
    if gradient_checkpointing:
        with warnings.catch_warnings():
            # The old name, which is the one that every version of transformers 5 has.
            warnings.simplefilter("ignore", FutureWarning)
            backbone.gradient_checkpointing_enable({"use_reentrant": False})
    with stood_in(backbone) if adapter is not None else nullcontext():
        if isinstance(adapter, LoraAdapter):  # has a seed of its own
            adapter.put_into(backbone, architecture)
        elif adapter is not None:
            put_adapter(adapter, backbone, architecture, seed)
    if adapter is not None and lm_head is not None:
        lm_head.requires_grad_(False)
    if freeze_layers is not None:
        if adapter is not None:
            raise ValueError(f"freeze_layers={freeze_layers}: an adapter freezes the whole backbone; leave one out")
        _freeze(backbone, architecture, freeze_layers)


def _freeze(backbone: PreTrainedModel, architecture: Architecture, num_layers: int) -> None:
    """Freeze the embeddings and the first layers; with all layers the last norm too, so that the head is trained alone.

    Raises:
        ValueError: if the backbone has fewer layers.
    """
    check_counts(0, freeze_layers=num_layers)
    if num_layers > (number := len(transformer_layers(backbone))):
        raise ValueError(
            f"freeze_layers={num_layers}: the backbone has {number} layers; freeze_layers={number} trains the head "
            "alone"
        )
    head = {id(parameter) for _, parameter in head_tensors(backbone, architecture)}
    frozen = backbone.parameters() if num_layers == number else parameters_before(backbone, num_layers)
    for parameter in (parameter for parameter in frozen if id(parameter) not in head):
        parameter.requires_grad_(False)
