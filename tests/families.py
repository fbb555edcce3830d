"""A tiny configuration of every decoder that transformers has a sequence classifier for."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.heads import ENCODERS
from tests.tiny import BOS, EOS, PAD, VOCAB

CLASSIFIERS = sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
"""Every `model_type` that transformers has a sequence classifier for."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim"), 24),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    **dict.fromkeys(("sliding_window", "window_size"), 6),  # shorter than most sequences of the tests
    **dict.fromkeys(("head_dim", "kv_channels", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "n_group"), 2),
    **dict.fromkeys(("topk_group", "n_shared_experts", "first_k_dense_replace", "decoder_sparse_step"), 1),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "mamba_d_conv", "mamba_expand"), 2),
    **dict.fromkeys(("rotary_dim", "mamba_d_state", "mamba_dt_rank"), 4),
}
"""Sizes by the names that configurations have for them."""

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_COMPASS_ROPE = {**_ROPE, "mrope_section": [1, 1, 2]}  # of its four frequencies; up to transformers 5.17 it is read
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_ZAMBA = {
    "num_hidden_layers": 4,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
    "attention_hidden_size": 32,
}
EXTRA: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": _COMPASS_ROPE, "full_attention": _COMPASS_ROPE},
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "minimax": _HYBRID,
    "mistral4": {"head_dim": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8},
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "zamba": {**_ZAMBA, "attention_head_dim": 16, "n_mamba_heads": 2},
    "zamba2": {
        **_ZAMBA,
        "attention_head_dim": 16,
        "mamba_headdim": 8,
        "n_mamba_heads": 4,
        "mamba_ngroups": 1,
        "num_mem_blocks": 1,
    },
}
"""What single families need beside their sizes: both kinds of a hybrid's layers, a pattern, own names of sizes."""


def family_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """A family's configuration of two layers, sixteen units and four experts, with the special tokens of the tests."""
    known = AutoConfig.for_model(model_type)
    other_names = set(known.attribute_map)
    sizes = {name: size for name, size in SIZES.items() if name in known.to_dict() and name not in other_names}
    tokens = {"vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": BOS}
    return AutoConfig.for_model(model_type, **{**sizes, **tokens, **EXTRA.get(model_type, {}), **changes})


def older_than(*version: int) -> bool:
    """Whether the transformers that is installed comes before one, (5, 18)."""
    return tuple(map(int, transformers.__version__.split(".")[:2])) < version


def nearly_same(found: Tensor, expected: Tensor) -> None:
    """Of Gemma 2 in transformers up to 5.17, whose gradients differ by 4e-11, DeepSeek-V2's in 5.10 by 2e-10."""
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def is_decoder(model_type: str) -> bool:
    """Whether the package reads a family at its last token."""
    try:
        return architecture_of(AutoConfig.for_model(model_type)).read_at == "last"
    except ValueError:
        return False


def table() -> list[str]:
    """The rows of docs/backbones.md: families that are read alike, their head, layouts and, where it is padded, why."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name in CLASSIFIERS:
        if name not in ENCODERS and not is_decoder(name):
            continue
        config = AutoConfig.for_model(name) if name in ENCODERS else family_config(name)
        found = architecture_of(config)
        layouts = (
            ("padded", "packed", "shared_prefix")[: 3 if found.read_at == "last" else 2] if found.packs else ("padded",)
        )
        head = f"{', '.join(f'`{part}`' for part in found.head)} of the {found.read_at} token"
        note = (
            "under `eager` attention, up to its window"
            if found.packs and found.attention == "eager"
            else found.why_rows
        )
        rows.setdefault((head, ", ".join(layouts), note or ""), []).append(name)
    return [
        f"| {', '.join(names)} | {' | '.join(row)} |"
        for row, names in sorted(rows.items(), key=lambda row: -len(row[1]))
    ]


if __name__ == "__main__":
    print("\n".join(table()))
