"""Export: a trained classifier as a Hugging Face folder that needs no code of ours.

`AutoModelForSequenceClassification.from_pretrained(folder)` gives our rewards, and so do servers that pool at the last
token: one label, `problem_type: regression` (vLLM then applies no sigmoid), a padding token that is not eos, adapters
merged, no language-model head, `score.weight` (1, H) for decoders. With the language-model head given, the folder is
the causal language model instead: a policy. It knows files; not batches or training.
"""

from __future__ import annotations

import copy
import os
import re
import tempfile
from pathlib import Path
from typing import cast

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.models.backbone.adapters import merge_adapters
from lightning_rm.models.backbone.contexts import quiet

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
SHARD_SIZE = "5GB"
MEMBERS_FILE = "members.safetensors"
"""What `members` writes beside an average; it is not of any other weights."""


def export(
    classifier: PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    lm_head: nn.Linear | None = None,
) -> None:
    """Write a classifier, or the language model that it was made of, and its tokenizer as a Hugging Face folder.

    A sharded classifier is gathered first: every rank calls this, rank 0 writes. The files are written in a hidden
    folder and then moved up one by one, so a killed run leaves no half-written file. Weights of an earlier export that
    are not overwritten are removed; other files stay.

    Tensors keep the dtype that they are trained in, and `config.json` names the backbone's: a head in float32 on a
    bfloat16 backbone stays float32 in the file, and is rounded only by a reader who asks for bfloat16.

    Args:
        classifier: a Hugging Face sequence classifier with one label; its adapters are merged into the copy on disk.
        folder: made if it is not there.
        tokenizer: saved beside the weights.
        lm_head: write the causal language model that has the classifier's backbone and this head.

    Raises:
        ValueError: if the tokenizer pads with another token than the model.
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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder) as draft, quiet():
        state = merge_adapters(cast(nn.Module, classifier), state)
        skeleton = _skeleton(classifier)
        if lm_head is not None:
            embeddings = cast(nn.Embedding, classifier.get_input_embeddings())
            skeleton, name = _causal_skeleton(skeleton, tied=lm_head.weight is embeddings.weight)
            state = {key: value for key, value in state.items() if key in skeleton.state_dict()}
            state |= {f"{name}.{key}": value for key, value in head.items()}
        skeleton.save_pretrained(draft, state_dict=state, max_shard_size=SHARD_SIZE)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        written = {path.name for path in Path(draft).iterdir()}
        for name in sorted(written):
            os.replace(Path(draft) / name, folder / name)
    for path in folder.iterdir():
        if (WEIGHTS.fullmatch(path.name) and path.name not in written) or path.name == MEMBERS_FILE:
            path.unlink()


def whole_state(classifier: PreTrainedModel | nn.Linear) -> dict[str, Tensor]:
    """The tensors of a classifier or a head by name: gathered on rank 0, 4-bit weights expanded, else not copied."""
    module = cast(nn.Module, classifier)
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        gathered = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return cast(dict[str, Tensor], gathered)
    state: dict[str, Tensor] = dict(module.state_dict())
    for name, parameter in module.named_parameters():
        if type(parameter).__name__ == "Params4bit":
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            expanded = dequantize_module_weight(module.get_submodule(name.rpartition(".")[0]))
            state[name] = expanded.detach().to(cast(PreTrainedModel, classifier).dtype)
    return state


def _skeleton(classifier: PreTrainedModel) -> PreTrainedModel:
    """The same classifier without adapters, quantisation or memory: what writes configuration and weight names."""
    config = copy.deepcopy(classifier.config)
    vars(config).pop("quantization_config", None)  # of the 4 bits or the GGUF that it was loaded from
    with torch.device("meta"):
        skeleton = type(classifier)(config)
    cast(nn.Module, skeleton).to(classifier.dtype)
    return skeleton


def _causal_skeleton(classifier: PreTrainedModel, tied: bool) -> tuple[PreTrainedModel, str]:
    """The causal language model of a classifier's skeleton, without memory too, and the name of its head."""
    config = classifier.config
    config.tie_word_embeddings = tied
    with torch.device("meta"):
        causal: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=classifier.dtype)
    modules = cast(nn.Module, causal).named_modules()
    return causal, next(name for name, module in modules if module is causal.get_output_embeddings())
