"""Dropout of our own, for backbones that ship with none, on embeddings or on features; and a context without any."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_rm.counts import given
from lightning_rm.models.backbone.contexts import evaluating
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.options import check_words

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
    check_words(get_args(DropoutAt), **given(dropout_at=at))
    for plain in model.plain_models:
        plain.feature_dropout = nn.Dropout(probability) if at == "features" else nn.Identity()
        embeddings = plain.backbone.get_input_embeddings()
        if at == "embeddings" and not hasattr(embeddings, _PROBABILITY):
            embeddings.register_forward_hook(_dropped)
        if at == "embeddings" or hasattr(embeddings, _PROBABILITY):
            setattr(embeddings, _PROBABILITY, probability if at == "embeddings" else 0.0)


def _dropped(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Drop numbers of a module's output: a hook that a copy of the model has too, with its own probability."""
    return F.dropout(output, float(getattr(module, _PROBABILITY)), module.training)


@contextmanager
def without_dropout(model: AnyRewardModel) -> Generator[None]:
    """Run forward and backward as in evaluation, but with gradient checkpointing where the model trains with it.

    Transformers checkpoints layers in training mode alone: those stay in it, and leave it for what is checkpointed, now
    and when the backward pass computes it again.

    Args:
        model: back in its modes afterwards, errors or not.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    layers: list[Any] = [layer for layer in layers if layer.training and layer.gradient_checkpointing]
    functions = [layer._gradient_checkpointing_func for layer in layers]
    with evaluating(model):
        try:
            for layer, checkpoint in zip(layers, functions, strict=True):
                layer.training = True
                layer._gradient_checkpointing_func = _evaluated(layer, checkpoint)
            yield
        finally:
            for layer, checkpoint in zip(layers, functions, strict=True):
                layer._gradient_checkpointing_func = checkpoint


def _evaluated(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return `checkpoint` with the layer in evaluation mode whenever the function that it checkpoints runs."""

    def checkpointed(function: Callable[..., Any], *args: Any) -> Any:
        def evaluated(*inner: Any) -> Any:
            layer.training = False
            try:
                return function(*inner)
            finally:
                layer.training = True

        return checkpoint(evaluated, *args)

    return checkpointed
