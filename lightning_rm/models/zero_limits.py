"""What does not go with DeepSpeed's ZeRO: each is an error before the first step, not a training that is wrong."""

from __future__ import annotations

from typing import cast

import lightning as L
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_rm.models.backbone.merging import adapted_layers, is_plain
from lightning_rm.models.backbone.partitions import is_partitioned
from lightning_rm.models.backbone.routers import routers_of
from lightning_rm.models.protocol import AnyRewardModel

TESTED = (AdamW, Adam, SGD)
"""Optimizers that treat each number of a tensor alike, so that they may be handed parts of flattened tensors."""


def check_parts(model: AnyRewardModel) -> None:
    """Check that a reward model can be kept in parts, by stage 3.

    Raises:
        ValueError: for members of one backbone, adapters other than LoRA, and weights that are not floating point; and
            for a mixture of experts, of which ranks would wait for one another's.
    """
    if model.num_rewards > 1:
        raise ValueError("stage 3 of ZeRO does not keep members of one backbone in parts; take stage=2, or trainer=ddp")
    for plain in model.plain_models:
        backbone = cast(nn.Module, plain.backbone)
        if not all(is_plain(layer) for _, layer in adapted_layers(backbone)):
            raise ValueError("only LoRA adapters can be merged from parts: take peft=lora or rslora, or stage=2")
        if routers_of(plain.backbone):
            raise ValueError("a mixture of experts has not been shown to go with stage 3 of ZeRO; take stage=2")
        if not all(parameter.is_floating_point() for parameter in backbone.parameters()):
            raise ValueError("weights in 4 bits have not been shown to go with stage 3 of ZeRO; take stage=2")


def check_trains(module: L.LightningModule, optimizer: Optimizer, trainer: L.Trainer) -> None:
    """Check what an engine would take and do wrongly.

    Raises:
        ValueError: for a module with a backward pass of its own, gradients clipped number by number or scaled, an
            optimizer that is not torch's AdamW, Adam or SGD, trained weights that are not in float32, or a module that
            stage 3 has partitioned before.
    """
    if type(module).backward is not L.LightningModule.backward:
        raise ValueError(
            f"{type(module).__name__} moves weights around each backward pass, which DeepSpeed does by itself: take "
            "trainer=ddp or fsdp2"
        )
    if trainer.gradient_clip_algorithm == "value":
        raise ValueError("gradient_clip_algorithm=value: DeepSpeed clips by the norm alone; leave it out")
    if trainer.precision == "16-mixed":
        raise ValueError("trainer.precision=16-mixed: with DeepSpeed set bf16-mixed or 32-true")
    if type(optimizer) not in TESTED:
        names = ", ".join(kind.__name__ for kind in TESTED)
        raise ValueError(
            f"optimizer {type(optimizer).__name__}: DeepSpeed hands it parts of flattened weights, which torch's "
            f"{names} step as they do whole ones; take one of them, or trainer=ddp"
        )
    if is_partitioned(module):
        raise ValueError("stage 3 has partitioned this model in an earlier fit; train it on in another process")
    if other := sorted({str(one.dtype) for one in module.parameters() if one.requires_grad} - {"torch.float32"}):
        raise ValueError(
            f"trained weights are in {', '.join(other)}, and DeepSpeed steps in float32: set "
            "backbone.model.dtype=float32"
        )
