"""Loading a policy: a causal language model from a folder, a hub name or a GGUF file. It knows no prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from lightning_rm.digests import files_digest
from lightning_rm.models.backbone.contexts import quiet
from lightning_rm.models.backbone.loading import Checkpoint, is_classifier, load_weights, weight_files
from lightning_rm.models.backbone.settings import dtype_of

CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""The endings of the names of classes that write text token by token."""


def policy_config(path: str | Path, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Return a policy's configuration without reading its weights.

    Args:
        path: a folder, a hub name or a `.gguf` file.
        trust_remote_code: whether the model may run code that it brings.

    Raises:
        ValueError: if nothing is there, or no causal language model.
    """
    checkpoint = Checkpoint.at(path, trust_remote_code=trust_remote_code)
    config = checkpoint.config()
    if is_classifier(config):
        raise ValueError(
            f"{checkpoint.origin} is a reward model, whose language-model head is gone, and writes no text. Give a "
            "causal language model: what experiment=sft leaves, a hub name, or a folder that "
            "AutoModelForCausalLM.from_pretrained reads"
        )
    named = config.architectures or []
    if named and not any(name.endswith(CAUSAL) for name in named):
        raise ValueError(
            f"{checkpoint.origin} is a {', '.join(named)} and writes no text; give a causal language model, such as "
            "one whose config.json names a ...ForCausalLM"
        )
    return config


def load_policy(
    path: str | Path, *, dtype: str | torch.dtype = "float32", trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return a policy, ready to sample from.

    Args:
        path: a folder, a hub name or a `.gguf` file.
        dtype: `float32`, `bfloat16` or `float16`.
        trust_remote_code: whether the model may run code that it brings.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        ValueError: if nothing is there, no causal language model, or not all of its weights.
    """
    policy_config(path, trust_remote_code=trust_remote_code)
    checkpoint = Checkpoint.at(path, trust_remote_code=trust_remote_code)
    with quiet():
        loaded, keys = load_weights(AutoModelForCausalLM, checkpoint, dtype=dtype_of(dtype))
    missing = sorted(keys["missing_keys"])
    if missing:
        raise ValueError(
            f"{checkpoint.origin}: weights of the language model are missing: {', '.join(missing)}; they would be "
            "random"
        )
    policy: PreTrainedModel = loaded.eval()
    return policy


def generation_config(path: str | Path) -> GenerationConfig | None:
    """Return a policy's generation config, where it has one."""
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:  # transformers raises it for a folder without one
        return None


def policy_version(path: str | Path) -> str:
    """Return what changes with a policy's weights: 16 hex digits of its weight files' bytes, or its commit on the hub.

    Args:
        path: a folder, a `.gguf` file, or a hub name that was loaded before: its commit is that of the hub's cache.
    """
    place = Path(path)
    if not place.exists():
        cached = try_to_load_from_cache(str(path), "config.json")
        return Path(cached).parent.name if isinstance(cached, str) else "not in the cache"
    if place.is_file():
        return files_digest([place])
    return files_digest(weight_files(place))
