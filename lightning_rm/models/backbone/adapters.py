"""Adapters on a backbone through peft: LoRA, QLoRA, or any of its configurations that acts within layers (DoRA, rsLoRA,
IA3, VeRA ...). The head is not a part of them: it is always trained, and whole.

Adapters are put into the backbone's own layers, so a model with them is the same kind of object as one without, and is
exported with them merged. It knows modules and weights; not batches, losses or files.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
from peft import PEFT_TYPE_TO_TUNER_MAPPING, LoraConfig, PeftConfig, PeftType
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightning_rm.counts import check_counts, check_numbers
from lightning_rm.models.backbone.contexts import seeded
from lightning_rm.models.backbone.heads import Architecture
from lightning_rm.models.backbone.merging import ADAPTER
from lightning_rm.models.backbone.partitions import shape_of
from lightning_rm.models.backbone.peft_names import names_as_they_are
from lightning_rm.models.backbone.routers import routers_of
from lightning_rm.precision import wide

NOT_HERE = {
    "target_parameters": "adapters of tensors that no linear layer has, as experts' are, are merged into none here; "
    "leave it out",
    "trainable_token_indices": "rows of embeddings belong to no linear layer, and are merged into none here; leave it "
    "out, or train the whole model without an adapter",
    "lora_bias": "most layers have no bias that it could be merged into; leave it out",
    "layers_to_transform": "say the layers by target_modules, such as r'.*layers\\.(0|1)\\..*_proj'",
    "layer_replication": "a model has the layers that its checkpoint has; leave it out",
}
"""Options of peft's that nobody may be left to believe in: what to do in place of each."""


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

    Raises:
        ValueError: for a rank that is not a whole number from 1, a negative alpha, or a dropout that is no probability
            below 1.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(1, rank=self.rank)
        check_numbers(0, alpha=self.alpha, dropout=self.dropout)
        if self.dropout >= 1:
            raise ValueError(f"dropout={self.dropout!r}; give a probability below 1")

    def put_into(self, classifier: PreTrainedModel, architecture: Architecture) -> None:
        """Put adapters in float32 into a classifier's backbone and freeze the rest of it; the head stays trainable.

        Raises:
            ValueError: if `target_modules` matches no linear layer.
        """
        config = LoraConfig(
            r=self.rank,
            lora_alpha=cast(int, self.alpha),
            lora_dropout=self.dropout,
            target_modules=self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules),
        )
        put_adapter(config, classifier, architecture, self.seed)


Adapter = LoraAdapter | PeftConfig
"""What `adapter=` takes: LoRA in our words, or a configuration of peft's."""


def put_adapter(config: PeftConfig, classifier: PreTrainedModel, architecture: Architecture, seed: int) -> None:
    """Put adapters in float32 into a classifier's backbone and freeze the rest of it; the head stays trainable.

    Args:
        config: of peft. Its `target_modules` are `all-linear` or None for every linear layer of the backbone but
            routers, a list of the ends of names, or a regular expression of whole names; `modules_to_save` is the
            head's in any case.
        classifier: changed in place.
        architecture: which of its modules are the head.
        seed: of the adapters' initial values.

    Raises:
        ValueError: if the configuration does not act within linear layers, has an option that would be left out of
            training or of what is exported, or its targets match none.
    """
    tuner = cast("dict[object, Any]", PEFT_TYPE_TO_TUNER_MAPPING).get(config.peft_type)
    if config.is_prompt_learning or tuner is None:
        raise ValueError(
            f"adapter={type(config).__name__}: it learns a prompt, which an exported model would lack; take one that "
            "acts within layers, such as LoraConfig, IA3Config or VeraConfig"
        )
    if config.peft_type == PeftType.ADALORA:
        raise ValueError(
            "adapter=AdaLoraConfig: its ranks are allotted by calls between steps, which nobody makes here; take "
            "another, such as LoraConfig"
        )
    if getattr(tuner, "uses_shared_state", False) and config.peft_type != PeftType.VERA:  # whose matrices are frozen
        raise ValueError(
            f"adapter={type(config).__name__} trains numbers that belong to no layer, and are merged into none here; "
            "take another, such as LoraConfig or VeraConfig"
        )
    changed = cast(Any, copy.deepcopy(config))
    _check_options(changed, classifier, architecture)
    changed.modules_to_save = None
    chosen = _targets(changed.target_modules, classifier, architecture)
    changed.target_modules = set(chosen)
    if forward := getattr(changed, "feedforward_modules", None):  # IA3's, which names them again
        ends = [forward] if isinstance(forward, str) else forward
        changed.feedforward_modules = {name for name in chosen if any(f".{name}".endswith(f".{end}") for end in ends)}
    if hasattr(changed, "save_projection"):
        changed.save_projection = False  # VeRA's random matrices are drawn again from their key
    if hasattr(changed, "fan_in_fan_out"):
        changed.fan_in_fan_out = isinstance(classifier.get_submodule(chosen[0]), Conv1D)
    with seeded(seed), names_as_they_are():
        tuner(classifier, changed, ADAPTER)
    for parameter in classifier.parameters():
        if parameter.requires_grad:  # peft has frozen what is not an adapter
            parameter.data = wide(parameter.data)
    for module in architecture.head:
        classifier.get_submodule(module).requires_grad_(True)


def is_wrapped(head: nn.Module) -> bool:
    """Tell whether peft has put a copy beside a module, as `get_peft_model` does with the head of a classifier."""
    return isinstance(head, ModulesToSaveWrapper)


def one_adapter(lora: LoraAdapter | None, adapter: Adapter | None) -> Adapter | None:
    """Return the adapter that was asked for, by either name.

    Raises:
        ValueError: if both are given.
    """
    if lora is not None and adapter is not None:
        raise ValueError("lora= and adapter= both say which adapters to train; give one of them")
    return adapter if lora is None else lora


def is_plain_lora(adapter: Adapter) -> bool:
    """Tell whether adapters are LoRA's sum alone, which merges into weights that are sharded or in 4 bits, too."""
    if isinstance(adapter, LoraAdapter):
        return True
    return isinstance(adapter, LoraConfig) and not adapter.use_dora and not isinstance(adapter.init_lora_weights, str)


def four_bit(architecture: Architecture, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """Return the 4-bit NormalFloat backbone of QLoRA (Dettmers et al., arXiv 2305.14314), its constants quantised too.

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


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Say how many of a module's parameters are trained, and how many it has."""
    sizes = [(shape_of(value).numel(), value.requires_grad) for value in module.parameters()]
    return sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)


def _check_options(config: Any, classifier: PreTrainedModel, architecture: Architecture) -> None:
    """Check that a configuration asks for nothing that is not done.

    Raises:
        ValueError: for an option of `NOT_HERE`, or modules beside the head that are to be trained whole.
    """
    for name, way_out in NOT_HERE.items():
        if value := getattr(config, name, None):
            raise ValueError(f"{type(config).__name__}({name}={value!r}): {way_out}")
    head = tuple(f"{name}." for name in architecture.head)
    modules = [f".{name}" for name, _ in classifier.named_modules() if not f"{name}.".startswith(head)]
    for wanted in getattr(config, "modules_to_save", None) or ():
        if any(name.endswith(f".{wanted}") for name in modules):
            raise ValueError(
                f"modules_to_save={list(config.modules_to_save)}: the head is trained beside adapters in any case, and "
                f"no other module is; leave {wanted!r} out, or train the whole model without an adapter"
            )


def _targets(wanted: Any, classifier: PreTrainedModel, architecture: Architecture) -> list[str]:
    """Return names of the layers that adapters go into, the head's left out.

    Raises:
        ValueError: if there is none.
    """
    outside = (*architecture.head, *routers_of(classifier))
    linear = _linear_layers(classifier, architecture.head)
    if wanted in (None, "all-linear", ["all-linear"]):
        return [name for name in linear if not any(f"{name}.".startswith(f"{other}.") for other in outside)]
    if isinstance(wanted, str):
        found = [name for name in linear if re.fullmatch(wanted, name) or name.rpartition(".")[2] == wanted]
    else:
        found = [name for name in linear if any(f".{name}".endswith(f".{end}") for end in wanted)]
    if not found:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        shown = [wanted] if isinstance(wanted, str) else sorted(wanted)
        raise ValueError(f"target_modules={shown}: no such linear layer in {classifier.config.model_type}: {known}")
    return found


def _linear_layers(classifier: PreTrainedModel, head: Sequence[str]) -> list[str]:
    """Return names of the backbone's linear layers, the head's left out."""
    own = tuple(f"{name}." for name in head)
    return [
        name
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not f"{name}.".startswith(own)
    ]
