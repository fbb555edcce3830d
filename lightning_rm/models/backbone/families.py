"""Families: what transformers' class of a configuration is read as, and which layouts its attention can honour.

A decoder is every sequence classifier of transformers whose head is a `score` of the last attended token. Its layouts
follow from what is true of its code: attention through transformers' interface, full or in a window, packs; a layer
that hands a state on from token to token does not. It knows transformers' classes; no weights, no batch.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from typing import Any, cast

import transformers
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PreTrainedConfig
from transformers.modeling_layers import GenericForSequenceClassification

from lightning_rm.models.attention.masks import SEGMENT_ATTENTION
from lightning_rm.models.backbone.heads import DECODER, ENCODERS, REMOTE, Architecture

LAYERS_THAT_PACK = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers, in a configuration's `layer_types`, whose tokens see each other through attention alone."""

OWN_MASKS = {
    "axk2": "an indexer of its own picks which tokens are seen",
    "doge": "it makes its attention's mask anew in every layer",
}
"""Families whose attention needs transformers' mask of all tokens by all tokens, which segments do not have."""

WINDOW_IN_MASK = frozenset({"phimoe", "qwen2_moe"})
"""Families that put their window into that mask and do not tell attention of it."""

PROVEN = frozenset(
    {
        *("arcee", "axk1", "axk2", "biogpt", "bloom", "cohere_compass_text", "deepseek_v2", "deepseek_v3"),
        *("diffllama", "doge", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2"),
        *("gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe"),
        *("jamba", "jetmoe", "llama", "minicpm3", "minimax", "ministral", "ministral3", "mistral", "mistral4"),
        *("mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "openai-gpt", "opt", "persimmon", "phi", "phi3"),
        *("phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_5_text", "qwen3_moe", "qwen3_next", "seed_oss", "smollm3"),
        *("stablelm", "starcoder2", "zamba", "zamba2"),
    }
)
"""Decoders that the tests train, export and read again in every layout they claim. Others are probed when loaded."""


def architecture_of(config: PreTrainedConfig, remote: bool = False) -> Architecture:
    """Say how a configuration's sequence classifier is read.

    Args:
        config: of text alone; see `text_tower.text_config` for those of images too.
        remote: whether the model brings its own code.

    Raises:
        ValueError: if transformers has no sequence classifier for it, or one whose head is not known here.
    """
    if remote:
        return REMOTE
    if (encoder := ENCODERS.get(config.model_type)) is not None:
        return encoder
    if config.is_encoder_decoder:
        raise ValueError(
            f"model_type={config.model_type!r} is an encoder and a decoder, and a reward model here is one of the two: "
            f"choose a decoder, or an encoder of one of: {', '.join(ENCODERS)}"
        )
    if config.get_text_config() is not config:
        raise ValueError(
            f"model_type={config.model_type!r} reads images too, and a reward model reads text: give its text tower, "
            f"model_type={config.get_text_config().model_type!r}; from_pretrained takes it out of a checkpoint"
        )
    kind = classifier_class(config)
    if not _reads_a_score(kind, config):
        raise ValueError(
            f"model_type={config.model_type!r}: {kind.__name__} has no head `score` that reads the last token, and its "
            f"own is not known here; choose a decoder, or an encoder of one of: {', '.join(ENCODERS)}"
        )
    reason = _why_rows(kind, config)
    sdpa = kind._supports_sdpa and getattr(config, "attn_logit_softcapping", None) is None
    attention = "eager" if not sdpa else SEGMENT_ATTENTION if reason is None else "sdpa"
    return replace(DECODER, packs=reason is None, attention=attention, why_rows=reason)


def classifier_class(config: PreTrainedConfig) -> type[Any]:
    """Return transformers' sequence classifier for a configuration.

    Raises:
        ValueError: if it has none; the message says what to do.
    """
    known = cast("dict[type[PreTrainedConfig], type[Any]]", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
    if type(config) not in known:
        raise ValueError(
            f"model_type={config.model_type!r}: transformers {transformers.__version__} has no sequence classifier for "
            "it, so that no server could read what is trained; choose a backbone that has one (docs: Backbones), a "
            "newer transformers, or a checkpoint that brings one, with trust_remote_code=true"
        )
    return known[type(config)]


def is_proven(config: PreTrainedConfig) -> bool:
    """Tell whether the tests have held this family to what is said of it here."""
    return config.model_type in PROVEN or config.model_type in ENCODERS


def _reads_a_score(kind: type[Any], config: PreTrainedConfig) -> bool:
    """Tell whether a classifier's forward makes its label of `score` at one token.

    Which token that is, the probe and the tests find out.
    """
    if getattr(config, "pooling", None) not in (None, "eos"):
        return False
    forward: Any = inspect.unwrap(kind.forward)
    return issubclass(kind, GenericForSequenceClassification) or "score" in forward.__code__.co_names


def _why_rows(kind: type[Any], config: PreTrainedConfig) -> str | None:
    """Return in words why every sequence needs a row of its own; None where several may share one."""
    if config.model_type in OWN_MASKS:
        return OWN_MASKS[config.model_type]
    layers = set(cast("list[str] | None", getattr(config, "layer_types", None)) or ()) - LAYERS_THAT_PACK
    if kind._is_stateful or layers:
        named = ", ".join(sorted(layers)) or "recurrent"
        return f"it has layers ({named}) that hand a state on from token to token, over the end of a sequence"
    if "ALL_ATTENTION_FUNCTIONS" not in vars(sys.modules[kind.__module__]):
        return "its attention does not go through transformers' interface"
    window = cast("int | None", getattr(config, "sliding_window", None)) or 0  # Qwen2-MoE's is 0 where it has none
    if config.model_type in WINDOW_IN_MASK and 0 < window < config.max_position_embeddings:
        return "its window is known to transformers' own masks alone"
    return None
