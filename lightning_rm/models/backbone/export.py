"""Export: a trained classifier as a Hugging Face folder that needs no code of ours.

`AutoModelForSequenceClassification.from_pretrained(folder)` gives our rewards, and so do servers that pool at the last
token: one label, `problem_type: regression` (vLLM then applies no sigmoid), a padding token that is not eos, adapters
merged, no language-model head, `score.weight` (1, H) for decoders. With the language-model head given, the folder is
the causal language model instead: a policy. It knows files; not batches or training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.checksums import write_checksums
from lightning_rm.folder_drafts import folder_draft
from lightning_rm.models.backbone.contexts import quiet
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.folder import TOKENIZER_FILES, is_no_model, is_of_model
from lightning_rm.models.backbone.heads import head_tensors
from lightning_rm.models.backbone.merging import merge_adapters
from lightning_rm.models.backbone.older import for_older_readers
from lightning_rm.models.backbone.partitions import gathered, is_partitioned

SHARD_SIZE = "5GB"

FACTS = ("lightning_rm", "mean", "std")
"""Keys of `config.json` that say what a model's rewards are like: true of the weights that they were measured on."""


def export(
    classifier: PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    lm_head: nn.Linear | None = None,
    *,
    dtype: torch.dtype | None = None,
    facts: Mapping[str, Any] | None = None,
    write_beside: Callable[[Path], None] | None = None,
) -> None:
    """Write a classifier, or the language model that it was made of, and its tokenizer as a Hugging Face folder.

    A sharded classifier is gathered first: every rank calls this, rank 0 writes. The files are written in a hidden
    folder beside the target, which is then swapped with it: a killed run leaves the old model or the new one, whole.
    Files that are not a model's stay in the folder, and without a new tokenizer the old one's.

    Tensors keep the dtype that they are trained in, and `config.json` names the backbone's: a head in float32 on a
    bfloat16 backbone stays float32 in the file, and is rounded only by a reader who asks for bfloat16.

    Args:
        classifier: a Hugging Face sequence classifier with one label; its adapters are merged into the copy on disk.
        folder: made if it is not there.
        tokenizer: saved beside the weights.
        lm_head: write the causal language model that has the classifier's backbone and this head.
        dtype: of the backbone's tensors, where another than their own is wanted; the head stays float32.
        facts: keys of `FACTS` and their values for `config.json`; those that the weights were loaded with are dropped.
        write_beside: writes more files into the folder that it is given, before the swap.

    Raises:
        ValueError: if the tokenizer pads with another token than the model, or a weight is computed from others, by a
            parametrisation or by pruning.
    """
    if tokenizer is not None and tokenizer.pad_token_id != classifier.config.pad_token_id:
        raise ValueError(
            f"the tokenizer pads with {tokenizer.pad_token_id} and the model with {classifier.config.pad_token_id}; "
            "load the model with tokenizer=, so that both take one padding token"
        )
    state = whole_state(classifier)
    head = {} if lm_head is None else whole_state(lm_head)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return

    def keep(name: str) -> bool:
        return is_no_model(name) or (tokenizer is None and TOKENIZER_FILES.fullmatch(name) is not None)

    with folder_draft(folder, keep) as draft, quiet():
        state = merge_adapters(cast(nn.Module, classifier), state)
        if dtype is not None:
            state = _cast(classifier, state, dtype)
        skeleton = _skeleton(classifier, dtype or classifier.dtype, facts or {})
        _check_names(state, cast(nn.Module, skeleton).state_dict())
        if lm_head is not None:
            embeddings = cast(nn.Embedding, classifier.get_input_embeddings())
            skeleton, name = _causal_skeleton(skeleton, tied=lm_head.weight is embeddings.weight)
            state = {key: value for key, value in state.items() if key in skeleton.state_dict()}
            state |= {f"{name}.{key}": value for key, value in head.items()}
        skeleton.save_pretrained(draft, state_dict=state, max_shard_size=SHARD_SIZE)
        finish_folder(draft, tokenizer, write_beside)


def finish_folder(
    draft: Path, tokenizer: PreTrainedTokenizerBase | None, write_beside: Callable[[Path], None] | None
) -> None:
    """Write into a model's folder what stands beside its weights: the tokenizer, what a caller adds, checksums."""
    if tokenizer is not None:
        tokenizer.save_pretrained(draft)
    for_older_readers(draft)
    if write_beside is not None:
        write_beside(draft)
    write_checksums(draft, is_of_model)


def whole_state(classifier: PreTrainedModel | nn.Linear) -> dict[str, Tensor]:
    """Return the tensors of a classifier or a head by name: gathered on rank 0, 4-bit weights expanded; others are
    not copied.
    """
    module = cast(nn.Module, classifier)
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        whole = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return cast(dict[str, Tensor], whole)
    if is_partitioned(module):
        return gathered(module)
    state: dict[str, Tensor] = dict(module.state_dict())
    for name, parameter in module.named_parameters():
        if type(parameter).__name__ == "Params4bit":
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            expanded = dequantize_module_weight(module.get_submodule(name.rpartition(".")[0]))
            state[name] = expanded.detach().to(cast(PreTrainedModel, classifier).dtype)
    return state


def _check_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a tensor that readers look for is not there under its name."""
    if missing := [name for name in wanted if name not in state]:
        others = next((name for name in state if name not in wanted), "none")
        raise ValueError(
            f"{missing[0]} is no weight of the model, and no reader would find it ({others} stands there): before the "
            "export make it one, by torch.nn.utils.parametrize.remove_parametrizations, or prune.remove"
        )


def _cast(classifier: PreTrainedModel, state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a state dict with the backbone's tensors in another dtype, the head's in their own."""
    architecture = architecture_of(classifier.config, remote=classifier.is_remote_code())
    head = {name for name, _ in head_tensors(classifier, architecture)}
    return {
        name: value.to(dtype) if value.is_floating_point() and name not in head else value
        for name, value in state.items()
    }


def _skeleton(classifier: PreTrainedModel, dtype: torch.dtype, facts: Mapping[str, Any]) -> PreTrainedModel:
    """Return the same classifier without adapters, quantisation or memory.

    It is what writes the configuration and the names of the weights.
    """
    config = copy.deepcopy(classifier.config)
    vars(config).pop("quantization_config", None)  # of the 4 bits or the GGUF that it was loaded from
    for name in FACTS:
        vars(config).pop(name, None)
    config.update(dict(facts))
    with torch.device("meta"):
        skeleton = type(classifier)(config)
    cast(nn.Module, skeleton).to(dtype)
    return skeleton


def _causal_skeleton(classifier: PreTrainedModel, tied: bool) -> tuple[PreTrainedModel, str]:
    """Return the causal language model of a classifier's skeleton, without memory too, and the name of its head."""
    config = classifier.config
    config.tie_word_embeddings = tied
    with torch.device("meta"):
        causal: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=classifier.dtype)
    modules = cast(nn.Module, causal).named_modules()
    return causal, next(name for name, module in modules if module is causal.get_output_embeddings())
