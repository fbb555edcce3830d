"""A backbone with its head, ready to read: from a checkpoint, or of random weights from a configuration.

It combines the other files of this folder. It knows checkpoints, heads and settings; nothing of layouts, losses or how
a reward model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.models.backbone import loading, settings, weight_names
from lightning_rm.models.backbone.adapters import Adapter, four_bit, is_plain_lora
from lightning_rm.models.backbone.checkpoint import Checkpoint
from lightning_rm.models.backbone.contexts import quiet, seeded
from lightning_rm.models.backbone.families import architecture_of, is_proven
from lightning_rm.models.backbone.heads import Architecture, head_tensors, init_head
from lightning_rm.models.backbone.kernels import use_liger
from lightning_rm.models.backbone.unread import Unread, empty

BY_NAME = (
    "; load_sharded reads weights by the names that the model has for them, and experts of mixtures are mostly stored "
    "one by one: leave it out, if the files are whole"
)


class Built(NamedTuple):
    """What a `RewardModel` is made of.

    Args:
        backbone: the sequence classifier.
        pad_id: the padding token.
        lm_head: the language-model head that was kept; None without.
        no_head_in: the checkpoint that brought no head, where a new one was drawn unasked; else None.
        unread: the weights that are still on the disk; None where they are read.
        num_added: embeddings that the checkpoint does not have.
    """

    backbone: PreTrainedModel
    pad_id: int
    lm_head: nn.Linear | None
    no_head_in: str | None = None
    unread: Unread | None = None
    num_added: int = 0


def build_pretrained(
    checkpoint: Checkpoint,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    pad_id: int | None,
    dtype: str | torch.dtype,
    attn_implementation: str | None,
    head_seed: int,
    dropout: float | None,
    keep_lm_head: bool,
    adapter: Adapter | None,
    load_in_4bit: bool,
    new_head: bool,
    liger: bool,
    load_sharded: bool = False,
) -> Built:
    """Load a backbone, and the head that it brings or a new one.

    Further arguments and errors are those of `RewardModel.from_pretrained`; adapters are put in there, `adapter` is
    checked here.
    """
    torch_dtype = settings.dtype_of(dtype)
    config = checkpoint.config()
    architecture = architecture_of(config, remote=checkpoint.trust_remote_code and "auto_map" in config.to_dict())
    pad_id = settings.choose_pad(config, architecture, pad_id, tokenizer, may_add=True)
    attention = settings.attention_of(attn_implementation, config, architecture)
    settings.set_experts(config, torch_dtype)
    if dropout is not None:
        settings.set_dropout(config, dropout)
    if load_in_4bit:
        _check_4bit(adapter, keep_lm_head)
    config.num_labels = 1
    # An embedding row of a padding token gets no gradient: it must not be a row that texts use.
    config.pad_token_id = pad_id if pad_id < config.vocab_size else None
    lm_head, unread, num_added = None, None, 0
    if load_sharded:
        _check_sharded(checkpoint, config, pad_id, tokenizer, whole=not (keep_lm_head or load_in_4bit))
        backbone, unread, missing = _unread(
            checkpoint, config, architecture, torch_dtype, attention, head_seed, new_head
        )
    else:
        if keep_lm_head:
            backbone, missing, lm_head = loading.load_with_lm_head(
                checkpoint, config, architecture, torch_dtype, attention, new_head
            )
        else:
            quantization = four_bit(architecture, torch_dtype) if load_in_4bit else None
            backbone, missing = loading.load_classifier(
                checkpoint, config, architecture, torch_dtype, attention, quantization, new_head
            )
        drawn = {name for name, _ in head_tensors(backbone, architecture)} if new_head else missing
        init_head(backbone, architecture, drawn, head_seed)
        num_added = loading.add_embeddings(backbone, pad_id, tokenizer, lm_head)
    if liger:
        use_liger(backbone)
    no_head_in = checkpoint.origin if missing and not new_head else None
    return Built(backbone, pad_id, lm_head, no_head_in, unread, num_added)


def _check_4bit(adapter: Adapter | None, keep_lm_head: bool) -> None:
    """Raise ValueError for what does not go with a backbone in 4 bits."""
    if adapter is None:
        raise ValueError("load_in_4bit trains no backbone weight; give lora= or adapter= too")
    if not is_plain_lora(adapter):
        raise ValueError("load_in_4bit goes with LoRA alone: others cannot be merged into 4 bits; leave one out")
    if keep_lm_head:
        raise ValueError("load_in_4bit and keep_lm_head do not go together; leave one out")


def _check_sharded(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    pad_id: int,
    tokenizer: PreTrainedTokenizerBase | None,
    whole: bool,
) -> None:
    """Raise ValueError for a checkpoint whose weights cannot be left on the disk: not `whole`, with another head or in
    4 bits, or with embeddings to be added.
    """
    if not whole or checkpoint.gguf_file is not None or not is_proven(config):
        raise ValueError(
            "load_sharded reads safetensors of families that the tests know; not 4 bits, GGUF or keep_lm_head: leave "
            "one out"
        )
    num_tokens = max(pad_id + 1, 0 if tokenizer is None else len(tokenizer))
    if num_tokens > config.vocab_size:
        raise ValueError(
            f"load_sharded: {checkpoint.origin} has {config.vocab_size} embeddings and the tokenizer {num_tokens} "
            "tokens; load the model once without it, and save it with this tokenizer"
        )


def _unread(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    architecture: Architecture,
    dtype: torch.dtype,
    attention: str,
    head_seed: int,
    new_head: bool,
) -> tuple[PreTrainedModel, Unread, set[str]]:
    """Return a classifier whose backbone has no memory yet, where its weights are, and which the checkpoint lacks.

    Raises:
        ValueError: if the files lack weights of the backbone or have them under other names, or the backbone has
            weights that its layers share, or that are no parameters.
    """
    loading.check_index(Path(checkpoint.path))
    unread = Unread.at(checkpoint.path, checkpoint.origin)
    with quiet(), seeded(0), torch.device("meta"):
        backbone = loading.build_classifier(config, dtype, attention)
    empty(backbone)
    for module in architecture.head:
        backbone.get_submodule(module).to_empty(device="cpu")
    head = {name for name, _ in head_tensors(backbone, architecture)}
    missing, others = unread.missing(backbone), unread.others(backbone)
    lacking = missing - head if new_head else missing
    weight_names.check_names(checkpoint, config, head, lacking, others, hint=BY_NAME)
    weight_names.warn_of_layers(checkpoint, backbone, others)
    drawn = head if new_head else missing
    init_head(backbone, architecture, drawn, head_seed)
    with torch.no_grad():
        for name, parameter in head_tensors(backbone, architecture):
            if name not in drawn:
                parameter.copy_(unread.part(name, "", 0, parameter.shape[0]))
    return backbone, unread, missing


def build_random(
    config: PreTrainedConfig | Mapping[str, Any],
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    vocab_size: int | None,
    pad_id: int | None,
    seed: int,
    dtype: str | torch.dtype,
    attn_implementation: str | None,
    keep_lm_head: bool,
) -> Built:
    """Draw all weights of a backbone and its head from a seed.

    Args and errors are those of `RewardModel.from_config`.
    """
    if not isinstance(config, PreTrainedConfig):
        config = settings.config_of(config)
    if tokenizer is not None:
        config.eos_token_id = tokenizer.eos_token_id
        config.bos_token_id = tokenizer.bos_token_id
        vocab_size = len(tokenizer) if vocab_size is None else vocab_size
    if vocab_size is not None:
        config.vocab_size = vocab_size
    architecture = architecture_of(config)
    if architecture.positions_after_pad and tokenizer is not None:
        config.pad_token_id = tokenizer.pad_token_id
    pad_id = settings.choose_pad(config, architecture, pad_id, tokenizer)
    config.pad_token_id, config.num_labels = pad_id, 1
    attention = settings.attention_of(attn_implementation, config, architecture)
    settings.set_experts(config, settings.dtype_of(dtype))
    with quiet(), seeded(seed):
        backbone = loading.build_classifier(config, settings.dtype_of(dtype), attention)
    init_head(backbone, architecture, {name for name, _ in head_tensors(backbone, architecture)}, seed)
    lm_head = None
    if keep_lm_head:
        if architecture.read_at == "first":
            raise ValueError(f"{config.model_type} is not a language model; keep_lm_head needs a decoder")
        with seeded(seed):
            lm_head = nn.Linear(
                cast(int, config.hidden_size), cast(int, config.vocab_size), bias=False, dtype=settings.dtype_of(dtype)
            )
    return Built(backbone, pad_id, lm_head)
