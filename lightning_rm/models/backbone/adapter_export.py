"""Export of adapters alone: a peft folder with the adapters and the head, a thousandth of the model's size.

`AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=...)` puts them on their base
again and gives our rewards. It knows files; not batches or training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, TaskType
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.drafts import folder_draft
from lightning_rm.models.backbone.adapters import ADAPTER
from lightning_rm.models.backbone.export import whole_state
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.backbone.folder import is_no_model
from lightning_rm.models.backbone.heads import head_tensors
from lightning_rm.models.backbone.older import for_older_readers

PREFIX = "base_model.model."
"""What peft puts before the names of a model's own modules."""


def export_adapters(
    classifier: PreTrainedModel,
    folder: str | Path,
    base: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    write_beside: Callable[[Path], None] | None = None,
) -> None:
    """Write a classifier's adapters and head, and its tokenizer, as a peft folder; the folder is swapped whole.

    Args:
        classifier: with adapters in its backbone; every rank calls this, rank 0 writes.
        folder: made if it is not there.
        base: the model that the adapters were trained on: a hub name, or a folder by its full path.
        tokenizer: saved beside them.
        write_beside: writes more files into the folder that it is given, before the swap.

    Raises:
        ValueError: if there are no adapters.
    """
    layers = {
        name: cast(Any, module)
        for name, module in cast(nn.Module, classifier).named_modules()
        if isinstance(module, LoraLayer)
    }
    if not layers:
        raise ValueError("the model has no adapters to write alone; export it whole, without adapter=true")
    state = whole_state(classifier)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    architecture = architecture_of(classifier.config, remote=classifier.is_remote_code())
    one = next(iter(layers.values()))
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        base_model_name_or_path=base,
        inference_mode=True,
        r=one.r[ADAPTER],
        lora_alpha=one.lora_alpha[ADAPTER],
        target_modules=sorted(layers),
        modules_to_save=list(architecture.head),
        fan_in_fan_out=one.fan_in_fan_out,
    )
    tensors: dict[str, Tensor] = {f"{PREFIX}{name}": state[name] for name, _ in head_tensors(classifier, architecture)}
    for name in layers:
        for part in ("lora_A", "lora_B"):
            tensors[f"{PREFIX}{name}.{part}.weight"] = state[f"{name}.{part}.{ADAPTER}.weight"]
    with folder_draft(folder, is_no_model) as draft:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            draft / "adapter_model.safetensors",
        )
        config.save_pretrained(str(draft))
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
            for_older_readers(draft)
        if write_beside is not None:
            write_beside(draft)
