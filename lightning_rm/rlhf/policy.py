"""Loading a policy: a causal language model from a folder, a hub name or a GGUF file. It knows no prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from lightning_rm.checksums import check_folder
from lightning_rm.digests import FileState, chunks_digest, sha256_of, state_of
from lightning_rm.models.backbone.checkpoint import Checkpoint, is_classifier
from lightning_rm.models.backbone.contexts import quiet
from lightning_rm.models.backbone.loading import load_weights, weight_files
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

    Raises:
        ValueError: if a weight file is cut, or has other bytes than its checksum says.
    """
    place = Path(path)
    if not place.exists():
        cached = try_to_load_from_cache(str(path), "config.json")
        return Path(cached).parent.name if isinstance(cached, str) else "not in the cache"
    if place.is_file():
        return _digest_of([place])
    check_folder(place)
    return _digest_of(weight_files(place))


def model_version(folder: Path) -> str:
    """Return what changes when a reward model does, an ensemble's members included.

    Raises:
        ValueError: if a weight file is cut, or has other bytes than its checksum says.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for part in sorted({file.parent for file in files}):
        check_folder(part)
    return _digest_of(files)


def _digest_of(files: Sequence[Path]) -> str:
    """Return `files_digest` of files, each read once in a process: several stages depend on the same weights."""
    return chunks_digest(bytes.fromhex(_sha256(file, state_of(file))) for file in files)[:16]


@lru_cache(maxsize=4096)
def _sha256(file: Path, state: FileState) -> str:
    """Return a digest of a file; one of the same state is not read again."""
    return sha256_of(file)
