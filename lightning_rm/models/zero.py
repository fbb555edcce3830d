"""ZeRO: weights, gradients and optimizer state over all ranks by DeepSpeed, as one strategy of Lightning's.

Lightning's own strategy refuses CPUs, casts the head to bfloat16, reads checkpoints as pickles and steps across the end
of an epoch; this one hands an engine the module, a loss to go back from and the moment of a step, and no more. It knows
modules, optimizers and DeepSpeed; not batches, losses or files.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_rm.models.backbone.partitions import gathered, is_partitioned, set_gathered
from lightning_rm.models.zero_limits import check_trains
from lightning_rm.models.zero_optimizer import ZeroOptimizer

STAGES = (1, 2, 3)
"""What is shared out: optimizer state; gradients too; weights too."""
OWN = ("stage", "offload_optimizer", "offload_param", "compute_grad_norm")
"""Options of `zero_optimization` that are not a user's."""


class ZeroStrategy(DDPStrategy):
    """A strategy that trains by DeepSpeed's ZeRO, with weights in float32 and a checkpoint as of one process.

    A checkpoint is a single file with whole tensors, gathered on rank 0: training goes on from it with any number of
    ranks, and by any other strategy.

    Args:
        stage: 1 shares out the optimizer's state, 2 gradients too, 3 weights too.
        offload: keep what stage 3 shares out in the host's memory.
        options: further entries of `zero_optimization` in DeepSpeed's configuration, such as bucket sizes.
        process_group_backend: `nccl`, `gloo` or None for what fits the device.

    Raises:
        ValueError: without DeepSpeed, for another stage, for `offload` with one that is not 3, or for options that
            `stage` and `offload` say.
    """

    def __init__(
        self,
        stage: int = 3,
        offload: bool = False,
        options: Mapping[str, Any] | None = None,
        process_group_backend: str | None = None,
    ) -> None:
        if find_spec("deepspeed") is None:
            raise ValueError("trainer=deepspeed needs DeepSpeed: pip install 'lightning-rm[deepspeed]'")
        if stage not in STAGES:
            raise ValueError(f"stage={stage}; give 1, 2 or 3")
        if offload and stage < 3:
            raise ValueError(f"offload=true with stage={stage} has not been shown to train as it should; take stage=3")
        if own := [name for name in options or () if name in OWN]:
            raise ValueError(
                f"options={{{own[0]}: ...}}: that is said by stage and offload, and every norm is computed"
            )
        super().__init__(process_group_backend=process_group_backend)
        self.stage = stage
        self.offload = offload
        self.options = dict(options or {})
        self._engine: Any = None

    def setup(self, trainer: L.Trainer) -> None:
        """Make the engine of a training; an evaluation needs none, and after a training of stage 3 gathers by itself.

        Raises:
            ValueError: for what the engine would take and do wrongly.
        """
        module = cast(L.LightningModule, self.lightning_module)
        if trainer.state.fn != TrainerFn.FITTING:
            if is_partitioned(module):
                assert self.accelerator is not None
                return self.accelerator.setup(trainer)
            return super().setup(trainer)
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.setup_optimizers(trainer)  # while weights still have their shapes, which say what is decayed
        optimizer = self.optimizers[0]
        check_trains(module, optimizer, trainer)
        config = self._config(trainer)
        deepspeed = _deepspeed(self.root_device.type)
        groups = [list(group["params"]) for group in optimizer.param_groups]
        if self.stage == 3:
            deepspeed.zero.Init(module=module, config_dict_or_path=config)  # weight by weight, never whole on a device
            for buffer in module.buffers():
                buffer.data = buffer.data.to(self.root_device)
        place = argparse.Namespace(device_rank=self.root_device.index or 0)
        told = {"args": place, "model": module, "optimizer": optimizer, "config": config, "dist_init_required": False}
        self._engine = deepspeed.initialize(**told)[0]
        self.model = self._engine
        self.optimizers = [ZeroOptimizer(self._engine, optimizer, groups)]
        self.setup_precision_plugin()

    def _config(self, trainer: L.Trainer) -> dict[str, Any]:
        """DeepSpeed's configuration: what the trainer says, in its words."""
        zero: dict[str, Any] = {"stage": self.stage}
        if self.offload:
            zero |= {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": 1,  # for its speedometer alone; pairs are counted by `batch.scale`
            "gradient_accumulation_steps": trainer.accumulate_grad_batches,
            "gradient_clipping": trainer.gradient_clip_val or 0.0,
            "zero_optimization": {**zero, **self.options},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
        }
        if isinstance(self.precision_plugin, MixedPrecision):
            # By torch, with weights gathered and gradients added up in float32: no module is safe to do it in less.
            config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        return config

    @contextmanager
    def block_backward_sync(self) -> Generator[None]:
        """Tell the engine of a micro-batch that is not a step's last."""
        self._engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self._engine.set_gradient_accumulation_boundary(True)

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """Go back from a loss that Lightning has divided by the micro-batches of a step already."""
        module = cast(L.LightningModule, self.lightning_module)
        loss = self.precision_plugin.pre_backward(closure_loss, module)
        self._engine.backward(loss, scale_wrt_gas=False)
        return self.precision_plugin.post_backward(loss, module)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return all weights: of partitioned ones those gathered on rank 0, and none on the others."""
        return gathered(cast(nn.Module, self.lightning_module))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take up a checkpoint's weights, each rank its part of partitioned ones."""
        module = cast(nn.Module, self.lightning_module)
        if not is_partitioned(module):
            return super().load_model_state_dict(checkpoint, strict)
        set_gathered(module, checkpoint["state_dict"])


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out that DeepSpeed finds no tensors in a `RewardOutput`: what returns one has no weight of its own."""
    return "unknown inputs or outputs type" not in record.getMessage()


def _deepspeed(device: str) -> Any:
    """Return DeepSpeed's module, once it has taken the kind of device that the trainer has.

    Raises:
        ValueError: if it has taken another.
    """
    deepspeed = import_module("deepspeed")
    taken = import_module("deepspeed.accelerator").get_accelerator().device_name()
    if taken != device:
        raise ValueError(
            f"DeepSpeed has taken the device {taken} and the trainer {device}: set DS_ACCELERATOR={device} in the "
            "environment before the start"
        )
    if device == "cpu":  # by gloo alone: no kernel for shared memory is compiled on the way
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").addFilter(_is_news)
    deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), dist_init_required=False)
    return deepspeed
