"""Settings of a backbone: its configuration, dtype, attention, dropout and padding token, each checked.

It knows transformers' configurations and what families are read as; no weights and no files.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase, utils
from transformers.utils.import_utils import is_kernels_available

from lightning_rm.counts import check_counts, given
from lightning_rm.models.attention.masks import SEGMENT_ATTENTION
from lightning_rm.models.attention.segments import register_segment_attention
from lightning_rm.models.backbone.contexts import quiet
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.heads import REMOTE, Architecture

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def config_of(values: Mapping[str, Any]) -> PreTrainedConfig:
    """Return a transformers configuration from `model_type` and sizes.

    Raises:
        ValueError: if the type is missing or not supported, or a name is not a setting of it.
    """
    options = dict(values)
    if "model_type" not in options:
        raise ValueError("the model's config has no 'model_type'; name an architecture, such as 'llama'")
    model_type = options.pop("model_type")
    with quiet():
        known = _configuration(model_type)
    architecture_of(known)
    unknown = sorted(set(options) - set(known.to_dict()) - set(known.attribute_map))
    if unknown:
        raise ValueError(
            f"the model's config has {', '.join(unknown)}, no setting of {model_type}; "
            f"known are: {', '.join(sorted(known.to_dict()))}"
        )
    try:
        return AutoConfig.for_model(model_type, **copy.deepcopy(options))
    except StrictDataclassError as error:
        raise ValueError(f"the model's config: {' '.join(str(error).split())}") from error


def _configuration(model_type: str) -> PreTrainedConfig:
    """Return the configuration of a type with every setting at its default.

    Raises:
        ValueError: if transformers knows no such type.
    """
    try:
        return AutoConfig.for_model(model_type)
    except ValueError as error:
        near = get_close_matches(model_type, CONFIG_MAPPING.keys(), n=3)
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"model_type={model_type!r} is not one that transformers knows{hint}") from error


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """Return a torch dtype, given as itself or by its name.

    Raises:
        ValueError: if a backbone cannot be stored in it.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype={name!r}: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def say_rows(config: PreTrainedConfig, architecture: Architecture) -> None:
    """Say once in a process why each sequence of a decoder gets a row of its own, where it does."""
    if architecture.why_rows is not None and architecture.read_at == "last":
        _say_once(f"{config.model_type}: {architecture.why_rows}; every sequence gets a row of its own (layout=padded)")


@lru_cache
def _say_once(sentence: str) -> None:
    log.info(sentence)


def set_experts(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    """Have experts of a mixture run one by one in float64, which the kernels that run them together do not know."""
    if dtype == torch.float64:
        config._experts_implementation = "eager"  # pyright: ignore[reportPrivateUsage]  # `from_config` has no argument


def attention_of(name: str | None, config: PreTrainedConfig, architecture: Architecture) -> str:
    """Choose which attention to ask transformers for, and make ours known to it where it is that one.

    Raises:
        ValueError: if the architecture has another kind only, or this machine lacks what the attention runs on.
    """
    if missing := _missing_for(name):
        raise ValueError(f"attn_implementation={name!r} {missing}; leave it out (null) for what runs everywhere")
    if architecture is REMOTE:
        return name or "eager"
    if architecture.attention == "eager" and name not in (None, "eager"):
        softcap = getattr(config, "attn_logit_softcapping", None) is not None
        reason = "caps its attention logits" if softcap else "has an attention of its own"
        raise ValueError(
            f"attn_implementation={name!r}: {config.model_type} {reason}; set attn_implementation to null or eager"
        )
    if name is None or name == "sdpa":
        name = architecture.attention
    if name == SEGMENT_ATTENTION:
        register_segment_attention()
    return name


def _missing_for(attention: str | None) -> str | None:
    """Return in words what this machine lacks for a kind of attention; None where that is nothing."""
    name = attention or ""
    if name.startswith("flash_attention_"):
        number = name.removeprefix("flash_attention_")
        found: Callable[[], bool] | None = getattr(utils, f"is_flash_attn_{number}_available", None)
        return None if found is None or found() else "needs a GPU and flash-attn's package, and one of them is not here"
    if "/" in name and not is_kernels_available():
        return "is a kernel of the hub, and the package kernels is not installed, or of another version"
    if name == "flex_attention" and not torch.cuda.is_available():
        return "has no gradient on a CPU"
    return None


def set_dropout(config: PreTrainedConfig, dropout: float) -> None:
    """Set every dropout of a configuration to one probability.

    Raises:
        ValueError: if it is not a probability.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: a probability below 1 is needed, or null to keep the checkpoint's own")
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float | int | None):
            setattr(config, name, dropout)


def choose_pad(
    config: PreTrainedConfig,
    architecture: Architecture,
    pad_id: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    may_add: bool = False,
) -> int:
    """Return the padding token: the one asked for, else the tokenizer's, else the configuration's.

    Args:
        config: the backbone's.
        architecture: how the backbone is read.
        pad_id: the one asked for.
        tokenizer: the model's.
        may_add: whether the tokenizer's tokens, and one for padding, get the embeddings that they lack.

    Raises:
        ValueError: if there is none, if it is no id, if it ends texts too (then a pooled classifier reads another
            token than the last of the text), if positions depend on the configuration's own, or if it is beyond the
            vocabulary.
    """
    check_counts(0, **given(pad_id=pad_id))
    own: int | None = config.pad_token_id
    candidates = (pad_id, None if tokenizer is None else cast("int | None", tokenizer.pad_token_id), own)
    pad = next((candidate for candidate in candidates if candidate is not None), None)
    if pad is None:
        raise ValueError(
            "the model has no padding token; give pad_token= of the tokenizer, a token that never stands in a text, or "
            "its id as pad_id="
        )
    ends = [config.eos_token_id] if tokenizer is None else [config.eos_token_id, tokenizer.eos_token_id]
    if architecture.read_at == "last" and any(pad == end or (isinstance(end, list) and pad in end) for end in ends):
        raise ValueError(
            f"the padding token {pad} ends texts too (eos): a classifier would read the token before the end; "
            "give pad_token= of the tokenizer, another token that never stands in a text, or its id as pad_id="
        )
    if architecture.positions_after_pad and pad != own:
        raise ValueError(f"pad_id={pad}: {config.model_type} counts positions from its own padding token; set {own}")
    num_tokens = max(cast(int, config.vocab_size), len(tokenizer) if may_add and tokenizer is not None else 0)
    if may_add and pad_id is not None and pad_id > num_tokens:
        raise ValueError(
            f"pad_id={pad_id} is not the next of the model's {num_tokens:,} tokens, and would add embeddings for all "
            f"between: give {num_tokens}, or tokenizer= that has those tokens"
        )
    if not may_add and pad >= num_tokens:
        raise ValueError(
            f"pad_id={pad}: the model's {num_tokens:,} tokens end at {num_tokens - 1}; give one of them that never "
            "stands in a text"
        )
    return pad
