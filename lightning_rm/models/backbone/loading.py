"""Loading: from a checkpoint or a configuration to a Hugging Face classifier with one label.

It reads weights and says what is wrong with them in a user's words. It knows no batch and trains nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lightning_rm.checksums import check_weights
from lightning_rm.models.backbone.checkpoint import Checkpoint, is_classifier
from lightning_rm.models.backbone.contexts import quiet, seeded
from lightning_rm.models.backbone.heads import Architecture, head_tensors
from lightning_rm.models.backbone.text_tower import WEIGHTS
from lightning_rm.models.backbone.weight_names import check_names, check_sizes, warn_of_layers
from lightning_rm.told import object_in, read_object

KEPT_IN_FLOAT32 = "_keep_in_fp32_modules_strict"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")


def load_weights(auto: Any, checkpoint: Checkpoint, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return what a class of transformers makes of a checkpoint, and what it says of missing and unexpected weights.

    Args:
        auto: such as `AutoModelForCausalLM`.
        checkpoint: where the weights are.
        **options: of `auto.from_pretrained`.

    Raises:
        ValueError: if the weights are not there, not whole, or not those of their configuration or checksums.
    """
    check_weights(Path(checkpoint.path))
    check_index(Path(checkpoint.path))
    try:
        options |= {"key_mapping": WEIGHTS, "output_loading_info": True, "ignore_mismatched_sizes": True}
        loaded, keys = auto.from_pretrained(checkpoint.path, **checkpoint.options, **options)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{checkpoint.origin}: the weights cannot be read: {error}") from error
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{checkpoint.origin}: the weights need a package that is not installed: {reason}") from error
    except Exception as error:
        if _of_torch_load(error):  # whose own words advise to run what is in the file, or say nothing of it
            raise ValueError(
                f"{checkpoint.origin}: the weights cannot be read: a .bin file is damaged, or holds more than tensors, "
                "which would be run and is not; ask for the weights as .safetensors"
            ) from error
        if not isinstance(error, RuntimeError):
            raise
        raise ValueError(f"{checkpoint.origin}: the weights do not fit their configuration: {error}") from error
    check_sizes(checkpoint, keys["mismatched_keys"])
    return loaded, keys


def check_index(folder: Path) -> None:
    """Check that the index of weights in several files names files of its own folder."""
    for index in folder.glob("*.index.json"):
        named = object_in(read_object(index), "weight_map", index).values()
        if outside := sorted(str(name) for name in named if Path(str(name)).name != str(name)):
            raise ValueError(f"{index} names weights outside its folder: {outside[0]}; put them beside it")


def _of_torch_load(error: Exception) -> bool:
    """Tell whether torch raised an error while it read a file: damaged files make it raise a dozen kinds."""
    return any(frame.filename == torch.serialization.__file__ for frame in traceback.extract_tb(error.__traceback__))


def weight_files(folder: str | Path) -> list[Path]:
    """Return the weight files of a model's folder, in order of name."""
    return sorted(file for file in Path(folder).iterdir() if file.suffix in WEIGHT_SUFFIXES)


def load_classifier(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    architecture: Architecture,
    dtype: torch.dtype,
    attention: str,
    quantization: object | None = None,
    new_head: bool = False,
) -> tuple[PreTrainedModel, set[str]]:
    """Return the checkpoint as a classifier with one label, its head in float32 as far as it is stored.

    Returns:
        The classifier, and the names of head parameters that the checkpoint does not hold.

    Raises:
        ValueError: if backbone weights are missing, or a reward checkpoint's head does not load and no new one is asked
            for.
    """
    options: dict[str, Any] = {"config": config, "dtype": dtype, "attn_implementation": attention}
    if quantization is not None:
        options["quantization_config"] = quantization
    with quiet(), seeded(0), _head_in_float32(architecture) if dtype != torch.float64 else nullcontext():
        classifier, keys = load_weights(AutoModelForSequenceClassification, checkpoint, **options)
    missing: set[str] = set(keys["missing_keys"])
    unexpected: set[str] = set(keys["unexpected_keys"])
    head = {name for name, _ in head_tensors(classifier, architecture)}
    check_names(checkpoint, config, head, missing - head if new_head else missing, unexpected)
    warn_of_layers(checkpoint, classifier, unexpected)
    return classifier, missing


def load_with_lm_head(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    architecture: Architecture,
    dtype: torch.dtype,
    attention: str,
    new_head: bool = False,
) -> tuple[PreTrainedModel, set[str], nn.Linear]:
    """Return a causal checkpoint as a classifier with one label, and the language-model head beside it.

    Returns:
        The classifier, the names of its head parameters (all are new), and the LM head, its weight shared with the
        embeddings where the checkpoint ties them.

    Raises:
        ValueError: if the checkpoint is not a causal language model, is not whole, or brings a reward head in another
            form and no new one is asked for.
    """
    if architecture.read_at == "first" or is_classifier(config):
        raise ValueError(f"{checkpoint.origin} has no language-model head; keep_lm_head needs a causal checkpoint")
    with quiet(), seeded(0):
        causal, keys = load_weights(
            AutoModelForCausalLM, checkpoint, config=config, dtype=dtype, attn_implementation=attention
        )
        with torch.device("meta"):
            classifier = build_classifier(config, dtype, attention)
        # The classifier takes the loaded base model over, with the configuration its layers read: nothing is copied.
        setattr(classifier, classifier.base_model_prefix, causal.base_model)
        classifier.config = causal.config
        for module in architecture.head:
            classifier.get_submodule(module).to_empty(device="cpu")
    names = {name for name, _ in head_tensors(classifier, architecture)}
    missing: set[str] = set(keys["missing_keys"])
    unexpected: set[str] = set(keys["unexpected_keys"])
    check_names(checkpoint, config, names, missing if new_head else missing | names, unexpected)
    warn_of_layers(checkpoint, classifier, unexpected)
    return classifier, names, cast(nn.Linear, causal.get_output_embeddings())


def build_classifier(config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """Return a classifier with weights drawn from the global random state."""
    config.dtype = dtype  # which transformers 5.10 takes rather than what it is asked for
    return AutoModelForSequenceClassification.from_config(config, dtype=dtype, attn_implementation=attention)


def add_embeddings(
    classifier: PreTrainedModel, pad_id: int, tokenizer: PreTrainedTokenizerBase | None, lm_head: nn.Linear | None
) -> int:
    """Add embedding rows for token ids that a checkpoint has none for: a new padding token, a tokenizer's additions.

    A kept LM head gets as many.

    Returns:
        How many there are.
    """
    embeddings = cast(nn.Embedding, classifier.get_input_embeddings())
    num_tokens = max(pad_id + 1, 0 if tokenizer is None else len(tokenizer))
    num_added = num_tokens - embeddings.num_embeddings
    if num_added <= 0:
        return 0
    tied = lm_head is not None and lm_head.weight is embeddings.weight
    with quiet(), seeded(0):
        classifier.resize_token_embeddings(num_tokens, mean_resizing=False)
    if lm_head is not None:
        added = cast(nn.Embedding, classifier.get_input_embeddings()).weight
        num_own = lm_head.out_features
        lm_head.weight = added if tied else nn.Parameter(torch.cat([lm_head.weight.data, added.data[num_own:]]))
        if lm_head.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # None without one
            more = lm_head.bias.new_zeros(num_tokens - num_own)
            lm_head.bias = nn.Parameter(torch.cat([lm_head.bias.data, more]))
        lm_head.out_features = num_tokens
    return num_added


@contextmanager
def _head_in_float32(architecture: Architecture) -> Generator[None]:
    """Have transformers load the head as it is stored, not rounded to the backbone's dtype.

    Transformers keeps a list of such modules on each class; the head joins it while weights are read.
    """
    before = getattr(PreTrainedModel, KEPT_IN_FLOAT32)
    setattr(PreTrainedModel, KEPT_IN_FLOAT32, set(architecture.head))
    try:
        yield
    finally:
        setattr(PreTrainedModel, KEPT_IN_FLOAT32, before)
