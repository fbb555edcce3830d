"""Tiny models of every supported architecture, and batches to run them on. All random, all in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_rm.batch import LayoutName, Sample, TokenBatch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.settings import config_of
from lightning_rm.models.reward_model import RewardModel
from tests.float64 import in_float64

PAD, EOS, BOS, VOCAB = 1, 2, 3, 40

DECODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
NO_HEAD_DIM = {name: value for name, value in DECODER.items() if name != "head_dim"}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **DECODER},
    "qwen2": {"model_type": "qwen2", **NO_HEAD_DIM},
    "qwen3": {"model_type": "qwen3", **DECODER},
    "gemma": {"model_type": "gemma", **DECODER},
    "gemma2": {"model_type": "gemma2", **DECODER},
    "gemma3_text": {"model_type": "gemma3_text", **DECODER, "sliding_window": 6},
    "mistral": {"model_type": "mistral", **DECODER, "sliding_window": 6},
    "ministral": {"model_type": "ministral", **DECODER, "sliding_window": 6},
    "gpt_neox": {"model_type": "gpt_neox", **ENCODER},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "olmo2": {"model_type": "olmo2", **NO_HEAD_DIM},
    "olmo3": {"model_type": "olmo3", **NO_HEAD_DIM, "sliding_window": 6},
    "phi3": {"model_type": "phi3", **NO_HEAD_DIM},
    "smollm3": {"model_type": "smollm3", **NO_HEAD_DIM},
    "starcoder2": {"model_type": "starcoder2", **NO_HEAD_DIM},
    "bert": {"model_type": "bert", **ENCODER},
    "roberta": {"model_type": "roberta", **ENCODER, "type_vocab_size": 1},
    "xlm-roberta": {"model_type": "xlm-roberta", **ENCODER, "type_vocab_size": 1},
    "camembert": {"model_type": "camembert", **ENCODER, "type_vocab_size": 1},
    "electra": {"model_type": "electra", **ENCODER, "embedding_size": 16},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 32,
        "hidden_dim": 48,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 64,
    },
    "modernbert": {"model_type": "modernbert", **ENCODER, "local_attention": 8},
    "deberta": {"model_type": "deberta", **ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"model_type": "deberta-v2", **ENCODER, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
}
"""Every encoder whose head is known, and decoders of several kinds; windows are shorter than the sequences."""


PACKING = [name for name, values in CONFIGS.items() if architecture_of(config_of(values)).packs]


def tiny_model(
    name: str = "llama",
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    dtype: str = "float64",
    **options: Any,
) -> RewardModel:
    """A model in evaluation mode whose special tokens differ from one another; in float64, see `tests.float64`."""
    config = {**CONFIGS[name], "vocab_size": VOCAB, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": BOS}
    model = RewardModel.from_config({**config, **(changes or {})}, seed=seed, dtype=dtype, **options).eval()
    return in_float64(model) if dtype == "float64" else model


def conversation(length: int, seed: int = 0) -> list[int]:
    """Random ids with an EOS in the middle and one at the end, never a padding token."""
    draw = random.Random(f"{length} {seed}")
    ids = [BOS, *(draw.randrange(4, VOCAB) for _ in range(length - 2)), EOS]
    ids[length // 2] = EOS
    return ids


def pairs(lengths: Sequence[tuple[int, int]] = ((9, 12), (5, 3), (14, 9))) -> list[Sample]:
    """Pairs of the given lengths; the last sequence of the first pair stands in the last pair too."""
    samples = [Sample([conversation(a, 1), conversation(b, 2)], prompt_length=1) for a, b in lengths]
    return [*samples[:-1], Sample([samples[-1].sequences[0], samples[0].sequences[1]], prompt_length=1)]


def prompted() -> list[Sample]:
    """Three pairs, two of one prompt: responses that begin alike, one of one token beside the longest, two the same."""
    prompt, beginning = conversation(17, 3)[:-1], conversation(9, 4)
    sequences = [
        [[*prompt, *beginning, *conversation(5, 5)], [*prompt, *beginning, *conversation(3, 6)]],
        [[*prompt, EOS], [*prompt, *conversation(62 - len(prompt), 7)]],
        [conversation(12, 8), conversation(12, 8)],
    ]
    return [Sample(pair, length) for pair, length in zip(sequences, (16, 16, 0), strict=True)]


def layouts_of(model: RewardModel) -> list[LayoutName]:
    """Those that the architecture can honour."""
    if not model.architecture.packs:
        return ["padded"]
    return ["padded", "packed", "shared_prefix"] if model.read_at == "last" else ["padded", "packed"]


def laid_out(model: RewardModel, layout: LayoutName = "padded", samples: Sequence[Sample] | None = None) -> TokenBatch:
    """Samples, `pairs()` where none are given, as the model reads them."""
    return LAYOUTS[layout](pairs() if samples is None else samples, model.read_at, model.pad_id)


def gradients(model: RewardModel) -> dict[str, Tensor]:
    """A copy of every gradient by name; zeros where there is none."""
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in model.named_parameters()
    }
