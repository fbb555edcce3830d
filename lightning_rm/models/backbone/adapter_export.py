"""Export of adapters alone: a peft folder with the adapters and the head, a thousandth of the model's size.

`AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=...)` puts them on their base
again and gives our rewards. It knows files; not batches or training.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from peft import TaskType, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.folder_drafts import folder_draft
from lightning_rm.models.backbone.export import finish_folder, whole_state
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.folder import is_no_model
from lightning_rm.models.backbone.heads import head_tensors
from lightning_rm.models.backbone.merging import ADAPTER, adapted_layers
from lightning_rm.models.backbone.peft_names import takes_others

PREFIX = "base_model.model."
"""What peft puts before the names of a model's own modules."""


def export_adapters(
    classifier: PreTrainedModel,
    folder: str | Path,
    base: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    dtype: torch.dtype | None = None,
    write_beside: Callable[[Path], None] | None = None,
) -> None:
    """Write a classifier's adapters and head, and its tokenizer, as a peft folder; the folder is swapped whole.

    Args:
        classifier: with adapters in its backbone; every rank calls this, rank 0 writes.
        folder: made if it is not there.
        base: the model that the adapters were trained on: a hub name, or a folder by its full path.
        tokenizer: saved beside them.
        dtype: of the adapters, where another than their own is wanted; the head stays float32.
        write_beside: writes more files into the folder that it is given, before the swap.

    Raises:
        ValueError: if there are no adapters, they stand on weights that their own start changed (PiSSA and others), or
            peft would put them on other layers.
    """
    layers = [name for name, _ in adapted_layers(classifier)]
    if not layers:
        raise ValueError("the model has no adapters to write alone; export it whole, without adapter=true")
    state = whole_state(classifier)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    architecture = architecture_of(classifier.config, remote=classifier.is_remote_code())
    config: Any = copy.deepcopy(cast(Any, classifier).peft_config[ADAPTER])
    if isinstance(getattr(config, "init_lora_weights", True), str):
        raise ValueError(
            f"init_lora_weights={config.init_lora_weights!r} changes the weights that adapters stand on, so that they "
            "are worth nothing on their base; export the model whole, without adapter=true"
        )
    if takes_others(config, classifier):
        raise ValueError(
            f"peft would put adapters of this {classifier.config.model_type}'s MLPs on its experts, and give other "
            "rewards; export the model whole, without adapter=true"
        )
    config.task_type = TaskType.SEQ_CLS
    config.base_model_name_or_path, config.inference_mode = base, True
    config.target_modules, config.modules_to_save = sorted(layers), list(architecture.head)
    adapters = get_peft_model_state_dict(
        classifier, state_dict=state, adapter_name=ADAPTER, save_embedding_layers=False
    )
    if dtype is not None:
        adapters = {name: value.to(dtype) for name, value in adapters.items()}
    adapters |= {name: state[name] for name, _ in head_tensors(classifier, architecture)}
    tensors: dict[str, Tensor] = {f"{PREFIX}{name}": value for name, value in adapters.items()}
    with folder_draft(folder, is_no_model) as draft:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            draft / "adapter_model.safetensors",
        )
        config.save_pretrained(str(draft))
        finish_folder(draft, tokenizer, write_beside)
