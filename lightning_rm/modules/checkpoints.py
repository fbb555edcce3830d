"""What a checkpoint says of its model, so that one can be made of it alone. It knows models and files; no trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import AutoConfig

from lightning_rm.models.reward_model import RewardModel


def describe(model: Any) -> str | None:
    """What a model's backbone is, as JSON; None of one that is more than a backbone and a head."""
    if type(model) is not RewardModel:
        return None
    dtype = str(next(model.backbone_parameters()).dtype).removeprefix("torch.")
    told = {"config": model.backbone.config.to_dict(), "pad_id": model.pad_id, "dtype": dtype}
    return json.dumps(told, default=str)


def model_of(path: str | Path) -> RewardModel:
    """A model with random weights into which a checkpoint's fit.

    Raises:
        ValueError: if the checkpoint does not say what its model is, or has adapters.
    """
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    names: list[str] = list(checkpoint.get("state_dict", {}))
    told = checkpoint.get("backbone")
    if told is None or any("lora_" in name for name in names):
        raise ValueError(
            f"{path} has weights of a model that cannot be made of them alone (members, adapters, an older run): give "
            "model=, made as the run made it; or read the run's exported model with lightning_rm.load_model(RUN)"
        )
    found: dict[str, Any] = json.loads(told)
    options = found["config"]
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    keeps_lm_head = any(name.startswith("model.lm_head.") for name in names)
    return RewardModel.from_config(config, pad_id=found["pad_id"], dtype=found["dtype"], keep_lm_head=keeps_lm_head)


def no_optimizer(groups: list[dict[str, Any]]) -> Optimizer:
    """Stands where none was given, and is asked for one in training alone."""
    raise ValueError(
        "this module was loaded to predict: to train it on give optimizer= too, such as "
        "functools.partial(torch.optim.AdamW, lr=1e-5)"
    )
