"""What the parts measure with: models made from configurations, dialogues of HH-RLHF's lengths, every method.

Weights are random and drawn on the device: nothing is read from a disk or a network. What a model costs depends on its
shape alone, and so do its rewards' errors.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from lightning_rm.batch import LayoutName, PreferenceBatch, ReadAt, Sample, group_batch, preference_batch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.attention.last_layer import LastLayer
from lightning_rm.models.backbone import loading, settings
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.contexts import quiet
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.heads import head_tensors, init_head
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.optimization import OptimizerFactory
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.supervised import SupervisedLM
from lightning_rm.modules.voters import VotersRM

SEED, PAD = 0, 0

SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
    },
    "Llama-3.2-1B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
    },
    "Llama-3.1-8B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131072,
    },
}
"""The sizes that those models' own configurations have."""

SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "vocab_size": 512}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}
"""What `--tiny` makes of every shape."""

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
PROMPT_TOKENS = (6, 13, 15, 20, 42, 67, 95, 123, 157, 204, 279, 349, 542, 887)
RESPONSE_TOKENS = (6, 11, 14, 19, 24, 30, 36, 46, 58, 74, 106, 139, 232, 763)
LIKENESS = 0.3
"""Quantiles of HH-RLHF's lengths, and how far the logarithms of two responses' lengths go together.

Measured on 3,942 pairs of the test files of `harmless-base` and `helpful-base`, in tokens of cl100k with 5 a turn for
the template. Between two quantiles lengths are taken to be evenly spread."""

LONGEST = 684
"""Tokens that 99 % of those pairs stay within."""


def shape_of(name: str, tiny: bool) -> dict[str, Any]:
    """A shape's configuration; with `tiny` of the same architecture and next to no weights."""
    return SHAPES[name] | SMALL if tiny else SHAPES[name]


def classifier(
    config: dict[str, Any], device: torch.device | str, attention: str | None = None, dtype: str = "float32"
) -> PreTrainedModel:
    """A sequence classifier of transformers with one label, its weights drawn on the device: each time the same.

    Args:
        config: `model_type` and sizes.
        device: `meta` draws nothing.
        attention: of transformers; None for ours, by segments.
        dtype: of its weights.
    """
    made = settings.config_of(config)
    made.num_labels, made.pad_token_id = 1, PAD
    architecture = architecture_of(made)
    torch.manual_seed(SEED)
    with torch.device(device), quiet():
        chosen = attention or settings.attention_of(None, made, architecture)
        found = loading.build_classifier(made, settings.dtype_of(dtype), chosen)
    init_head(found, architecture, {name for name, _ in head_tensors(found, architecture)}, SEED)
    return found


def reward_model(
    config: dict[str, Any], device: torch.device | str, dtype: str = "float32", last_layer: LastLayer | None = None
) -> RewardModel:
    """A reward model on such a classifier, ready to train."""
    return RewardModel(classifier(config, device, dtype=dtype), PAD, last_layer=last_layer)


def with_lora(model: RewardModel, lora: LoraAdapter) -> RewardModel:
    """The same model with adapters in place of its weights, on its device."""
    device = next(model.parameters()).device
    lora.put_into(model.backbone, model.architecture)
    return model.to(device)


def checkpoint(model: RewardModel) -> None:
    """Have each layer's activations computed again in the backward pass."""
    with warnings.catch_warnings():  # of a name that not every version has
        warnings.simplefilter("ignore", FutureWarning)
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})


def hh_lengths(number: int, limit: int, seed: int = SEED) -> list[tuple[int, int, int]]:
    """Tokens of the prompt, the chosen and the rejected response of pairs like HH-RLHF's, stretched to a context.

    All lengths are multiplied so that 99 % of pairs would stay within the limit; those that do not are drawn again.

    Args:
        number: of pairs.
        limit: tokens of the longer conversation, at most.
        seed: of the draw.
    """
    draw = np.random.default_rng(seed)
    stretch = limit / LONGEST
    found: list[tuple[int, int, int]] = []
    while len(found) < number:
        common, *own = draw.normal(size=3)
        likeness = LIKENESS**0.5
        normal = torch.tensor([draw.normal(), *(likeness * common + (1 - LIKENESS) ** 0.5 * one for one in own)])
        share = torch.special.ndtr(normal).numpy()
        prompt = stretch * np.interp(share[0], SHARES, PROMPT_TOKENS)
        chosen, rejected = stretch * np.interp(share[1:], SHARES, RESPONSE_TOKENS)
        if prompt + max(chosen, rejected) <= limit:
            found.append((round(prompt), round(chosen), round(rejected)))
    return found


def made_samples(lengths: Sequence[tuple[int, ...]], vocabulary: int, seed: int = SEED) -> list[Sample]:
    """Samples of random ids, never the padding: (tokens of the prompt, of each response)."""
    draw = random.Random(seed)

    def ids(length: int) -> list[int]:
        return draw.choices(range(3, vocabulary), k=max(length, 1))

    made: list[Sample] = []
    for prompt, *responses in lengths:
        beginning = ids(prompt)
        made.append(Sample([beginning + ids(length) for length in responses], len(beginning)))
    return made


def batch_of(
    samples: Sequence[Sample],
    layout: LayoutName,
    groups: Sequence[Sample] = (),
    read_at: ReadAt = "last",
) -> PreferenceBatch:
    """Pairs, and the response groups that go with them, on a layout; strengths and margins are made."""
    strength = torch.linspace(-1, 2, len(samples))
    batch = preference_batch(LAYOUTS[layout](samples, read_at, PAD), strength=strength, margin=strength.abs())
    if not groups:
        return batch
    return replace(batch, responses=(group_batch(LAYOUTS[layout](groups, read_at, PAD)),))


def methods(
    make: Callable[[], RewardModel], optimizer: OptimizerFactory, views: Any = "features", members: int = 10
) -> dict[str, Callable[[], PairwiseRM]]:
    """A module of each method with the settings of its experiment, on a model of its own.

    Args:
        make: a model.
        optimizer: of every module.
        views: where dropout makes two views of a batch; None where the model does.
        members: of the voters.
    """

    def supervised() -> PairwiseRM:
        model = make()
        sizes, vectors = model.backbone.config, model.backbone.get_input_embeddings()
        with torch.device(vectors.weight.device):
            model.lm_head = nn.Linear(sizes.hidden_size, sizes.vocab_size, bias=False)
        return SupervisedLM(model, optimizer)

    def voters(lora_layers: int) -> PairwiseRM:
        model = MemberRewardModel.of(make(), Members(num_members=members, lora_layers=lora_layers))
        return VotersRM(model.to(next(model.backbone.parameters()).device), optimizer)

    swav = partial(SwAV, num_prototypes=50)
    return {
        "baseline": lambda: BaselineRM(make(), optimizer, centering=0.01),
        "strength_aware": lambda: StrengthAwareRM(make(), optimizer, distill=0.5),
        "simcse": lambda: ContrastiveRM(make(), optimizer, SimCSE, dropout_at=views),
        "swav": lambda: ContrastiveRM(make(), optimizer, swav, beta=0.1, dropout_at=views),
        "voters": lambda: voters(0),
        "voters_lora": lambda: voters(1),
        "meta": lambda: MetaRM(make(), optimizer, ascent_lr=0.01, ascent_scale="relative"),
        "supervised": supervised,
    }
