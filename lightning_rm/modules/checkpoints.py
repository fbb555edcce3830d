"""What a checkpoint says of its model: whether it is this one, and how to make a model of the checkpoint alone.

It knows models and files; no trainer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch.optim import Optimizer
from transformers import AutoConfig

from lightning_rm.checksums import check_archive
from lightning_rm.models.backbone.partitions import shape_of
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.told import object_in, object_of

_ANY_NUMBER = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
"""What `*arguments` and `**options` are, which need not be given."""


def describe(model: Any) -> str | None:
    """Return what a model's backbone is, as JSON; None for one that is more than a backbone and a head."""
    if type(model) is not RewardModel:
        return None
    dtype = str(next(model.backbone_parameters()).dtype).removeprefix("torch.")
    told = {"config": model.backbone.config.to_dict(), "pad_id": model.pad_id, "dtype": dtype}
    return json.dumps(told, default=str)


def model_of(path: str | Path, checkpoint: Mapping[str, Any]) -> RewardModel:
    """Return a model with random weights that the weights of a checkpoint can replace.

    Args:
        path: of the checkpoint.
        checkpoint: what is in it.

    Raises:
        ValueError: if the checkpoint does not say what its model is, or has adapters.
    """
    names: list[str] = list(checkpoint.get("state_dict", {}))
    told = checkpoint.get("backbone")
    if told is None or any("lora_" in name for name in names):
        raise ValueError(
            f"{path} has weights of a model that cannot be made of them alone (members, adapters, an older run): give "
            "model=, made as the run made it; or read the run's exported model with lightning_rm.load_model(RUN)"
        )
    found = object_of(told, name := f"the backbone that {path} tells of")
    options = object_in(found, "config", name)
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    keeps_lm_head = any(name.startswith("model.lm_head.") for name in names)
    return RewardModel.from_config(config, pad_id=found["pad_id"], dtype=found["dtype"], keep_lm_head=keeps_lm_head)


def no_optimizer(groups: list[dict[str, Any]]) -> Optimizer:
    """Refuse: it stands where no optimizer was given, and is asked for one in training alone."""
    raise ValueError(
        "this module was loaded to predict: to train it on give optimizer= too, such as "
        "functools.partial(torch.optim.AdamW, lr=1e-5)"
    )


def arguments_for(
    module: Callable[..., Any], path: str | Path, given: Mapping[str, Any], weights_only: bool = True
) -> dict[str, Any]:
    """Complete what a module's constructor is given, by a model made of the checkpoint and an optimizer never used.

    Args:
        module: the class.
        path: of the checkpoint; hyperparameters that it has are arguments too, which Lightning hands over.
        given: arguments of the constructor.
        weights_only: as in torch.load.

    Raises:
        ValueError: if the checkpoint is damaged, the model cannot be made of it alone, or another argument is missing.
    """
    arguments = {"optimizer": no_optimizer, **given}
    parameters = signature(module).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.kind not in _ANY_NUMBER]
    if {"model", *needed} <= {*arguments}:
        return arguments
    check_archive(Path(path))
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    if "model" not in arguments:
        arguments["model"] = model_of(path, checkpoint)
    kept = checkpoint.get(LightningModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    if missing := [name for name in needed if name not in arguments and name not in kept]:
        told = ", ".join(f"{name}=..." for name in missing)
        raise ValueError(f"{module.__name__}.load_from_checkpoint needs {told}, as the run that wrote it had")
    return arguments


def check_weights(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Check that a checkpoint's tensors are those of a model.

    Args:
        state: the checkpoint's tensors by name.
        own: the model's.

    Raises:
        ValueError: if names or shapes differ.
    """
    groups = {
        "has, and this model has not": [name for name in state if name not in own],
        "has not, and this model has": [name for name in own if name not in state],
        "has in another shape": [name for name in own if name in state and state[name].shape != shape_of(own[name])],
    }
    if told := [f"{len(names)} tensors that it {what} ({names[0]})" for what, names in groups.items() if names]:
        lora = " One of them has adapters (peft=, or backbone.model.lora=) and the other has none."
        adapted = any("lora_" in name for name in state) != any("lora_" in name for name in own)
        raise ValueError(
            f"the checkpoint is of another model: {'; '.join(told)}.{lora if adapted else ''} Go on with the "
            "backbone=, peft=, members= and module= that its run's config.yaml has"
        )
