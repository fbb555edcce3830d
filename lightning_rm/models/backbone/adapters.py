"""Adapters: LoRA and QLoRA on a backbone through peft. The head is no part of them: it is always trained, and whole.

Adapters are put into the backbone's own layers, so a model with them is the same kind of object as one without, and is
exported with them merged. It knows modules and weights; not batches, losses or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_rm.models.backbone.contexts import seeded
from lightning_rm.models.backbone.heads import Architecture
from lightning_rm.precision import wide

ADAPTER = "default"


@dataclass(frozen=True)
class LoraAdapter:
    """Low-rank adapters (Hu et al., arXiv 2106.09685): `W + alpha / rank * B A`, B zero at first.

    Args:
        rank: columns of B and rows of A.
        alpha: the scale's numerator.
        dropout: on the adapters' inputs.
        target_modules: `all-linear` for every linear layer of the backbone, or the last parts of their names, such as
            `["q_proj", "v_proj"]`.
        seed: of A's initial values.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    seed: int = 0

    def put_into(self, classifier: PreTrainedModel, architecture: Architecture) -> None:
        """Put adapters in float32 into a classifier's backbone and freeze the rest of it; the head stays trainable.

        Raises:
            ValueError: if `target_modules` matches no linear layer.
        """
        linear = _linear_layers(classifier, architecture)
        wanted = [self.target_modules] if isinstance(self.target_modules, str) else list(self.target_modules)
        chosen = [name for name in linear if wanted == ["all-linear"] or name.rpartition(".")[2] in wanted]
        if not chosen:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise ValueError(
                f"target_modules={wanted}: no such linear layer in {classifier.config.model_type}: {known}"
            )
        config = LoraConfig(
            r=self.rank,
            lora_alpha=cast(int, self.alpha),
            lora_dropout=self.dropout,
            target_modules=chosen,
            fan_in_fan_out=isinstance(classifier.get_submodule(chosen[0]), Conv1D),
        )
        with seeded(self.seed):
            inject_adapter_in_model(config, cast(nn.Module, classifier), ADAPTER)
        for name, parameter in classifier.named_parameters():
            parameter.requires_grad_(".lora_" in name)
            if parameter.requires_grad:
                parameter.data = wide(parameter.data)
        for module in architecture.head:
            classifier.get_submodule(module).requires_grad_(True)


def four_bit(architecture: Architecture, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """The 4-bit NormalFloat backbone of QLoRA (Dettmers et al., arXiv 2305.14314), its constants quantised too.

    Args:
        architecture: whose head is left as it is.
        compute_dtype: what weights are expanded to when they are used.

    Raises:
        ValueError: without a CUDA device, or without bitsandbytes.
    """
    if not torch.cuda.is_available():
        raise ValueError("load_in_4bit needs a CUDA device and none is here; use lora= without load_in_4bit")
    if find_spec("bitsandbytes") is None:
        raise ValueError("load_in_4bit needs bitsandbytes, which is not installed; pip install 'lightning-rm[qlora]'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(architecture.head),
    )


def merge_adapters(classifier: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every adapter added to the weight it adapts; the classifier is left as it is.

    Args:
        classifier: the model that the state is of, for the adapters' scales.
        state: its tensors by name, whole.

    Returns:
        The state dict of the same classifier without adapters. The sum is made in float32 and rounded to the weight's
        dtype.
    """
    merged = dict(state)
    for name, module in classifier.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        layer = cast(Any, module)
        down, up = (wide(merged.pop(f"{name}.lora_{part}.{ADAPTER}.weight")) for part in "AB")
        delta: Tensor = layer.scaling[ADAPTER] * (up @ down)
        weight = merged.pop(f"{name}.base_layer.weight")
        merged[f"{name}.weight"] = (wide(weight) + (delta.T if layer.fan_in_fan_out else delta)).to(weight.dtype)
        if (bias := merged.pop(f"{name}.base_layer.bias", None)) is not None:
            merged[f"{name}.bias"] = bias
    return merged


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """How many of a module's parameters are trained, and how many it has."""
    parameters = list(module.parameters())
    return sum(value.numel() for value in parameters if value.requires_grad), sum(map(Tensor.numel, parameters))


def _linear_layers(classifier: PreTrainedModel, architecture: Architecture) -> list[str]:
    """Names of the backbone's linear layers, the head's left out."""
    head = tuple(f"{name}." for name in architecture.head)
    return [
        name
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not f"{name}.".startswith(head)
    ]
