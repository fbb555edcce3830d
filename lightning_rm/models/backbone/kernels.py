"""Fused kernels for a backbone's norms, MLPs and rotary embeddings: Liger's, or those that torch compiles.

It knows transformers' switch and layers; nothing of what runs through them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.compiler import config
from transformers import PreTrainedModel
from transformers.integrations.liger import apply_liger_kernel

NO_LOSSES = {"cross_entropy": False, "fused_linear_cross_entropy": False}
"""Liger would put its own forward, with a loss over the vocabulary, in the place of a language model's."""

RECOMPILE_LIMIT = 64
"""The most variants of one layer's code; torch's own 8 are fewer than a run with two layouts and MetaRM has."""


def use_liger(backbone: PreTrainedModel) -> None:
    """Have a backbone run Liger's Triton kernels, in place; its weights, their names and its rewards stay.

    Rotary embeddings are replaced for all models of the architecture in this process.

    Raises:
        ValueError: if the package is not installed, there is no GPU, or Liger knows no such architecture.
    """
    if find_spec("liger_kernel") is None:
        raise ValueError("liger=true needs the package liger-kernel; pip install 'lightning-rm[liger]'")
    if not torch.accelerator.is_available():
        raise ValueError("liger=true: its kernels run on a GPU, and torch finds none here; leave it out")
    known: dict[str, Any] = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    model_type = backbone.config.model_type
    if model_type not in known:
        raise ValueError(f"liger=true: Liger has no kernels for {model_type}; leave it out")
    try:
        apply_liger_kernel(backbone, NO_LOSSES)
    except TypeError:  # of some families Liger takes a language model or what is below its head, and no classifier
        apply_liger_kernel(backbone.base_model, NO_LOSSES)


def compile_layers(layers: Sequence[nn.Module]) -> None:
    """Have torch compile layers at their first forward, in place and for any number of tokens.

    Attention by segments is left out of what is compiled; norms, projections, rotary embeddings and MLPs are in it.

    Args:
        layers: without hooks.

    Raises:
        ValueError: if there is no compiler: one of C++ for a CPU, Triton for a GPU.
    """
    if torch.cuda.is_available():
        if find_spec("triton") is None:
            raise ValueError("compile=true needs Triton on a GPU, and it is not installed; leave compile out")
    elif not any(map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++", "c++"))):
        raise ValueError("compile=true needs a C++ compiler, and none is on the path; install g++ or leave compile out")
    # All layers share their code, and each mode (training, evaluation, autocast, a layout) is a variant of it.
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    for layer in layers:
        layer.compile(dynamic=True)


def is_compiled(module: nn.Module) -> bool:
    """Tell whether torch compiles a part of a module."""
    return any(part._compiled_call_impl is not None for part in module.modules())  # pyright: ignore[reportPrivateUsage]
