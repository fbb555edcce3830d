"""ZeRO: weights, gradients and optimizer state over all ranks by DeepSpeed, as one strategy of Lightning's.

Lightning's own strategy refuses CPUs, casts the head to bfloat16, reads checkpoints as pickles and steps across the end
of an epoch; this one hands an engine the module, a loss to go back from and the moment of a step, and no more. It knows
modules, optimizers and DeepSpeed; not batches, losses or files.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Generator, Mapping
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
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_rm.models.backbone.merging import adapted_layers, is_plain
from lightning_rm.models.backbone.partitions import gathered, is_partitioned, set_gathered
from lightning_rm.models.backbone.routers import routers_of
from lightning_rm.models.protocol import AnyRewardModel

STAGES = (1, 2, 3)
"""What is shared out: optimizer state; gradients too; weights too."""
OWN = ("stage", "offload_optimizer", "offload_param", "compute_grad_norm")
"""Options of `zero_optimization` that are not a user's."""
TESTED = (AdamW, Adam, SGD)
"""Optimizers that treat each number of a tensor alike, so that they may be handed parts of flattened tensors."""


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
        check_trains(module, optimizer, self.stage, trainer)
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


class ZeroOptimizer(Optimizer):
    """What a trainer sees of an engine: groups with their rates, a step, and a state of whole tensors.

    Args:
        engine: DeepSpeed's.
        inner: the optimizer that the engine was given; its groups have flattened parts of weights by now.
        groups: the weights that its groups had before, in their order.

    Attributes:
        norm: of the latest step's gradient over all ranks, before clipping; infinity where it was not finite, and the
            step was left out.
    """

    def __init__(self, engine: Any, inner: Optimizer, groups: list[list[nn.Parameter]]) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.param_groups = inner.param_groups
        self.state = inner.state
        self.norm = 0.0
        self._engine = engine
        self._groups = groups

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Go forward and back, clip and step, or leave the step out where the gradient's norm is not finite."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._engine.step()
        self.norm = float(self._engine.get_global_grad_norm())
        if self._engine.was_step_applied() != (self.norm < float("inf")):
            raise RuntimeError(f"DeepSpeed took a step whose gradient has the norm {self.norm}")
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the engine lets go of gradients as it steps."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of whole tensors as the optimizer would have on one process; all ranks call this alike.

        Returns:
            As torch's, on rank 0 on the host; others have options without tensors.
        """
        from deepspeed.utils import safe_get_full_optimizer_state  # pyright: ignore[reportMissingImports]

        state: dict[int, dict[str, Any]] = {}
        names, shared = _state_names(self.state)
        _link_states(self._engine.optimizer, self.state)
        for number, parameter in enumerate(parameter for group in self._groups for parameter in group):
            whole = {name: safe_get_full_optimizer_state(parameter, name) for name in names}
            if names and torch.distributed.get_rank() == 0:
                state[number] = {name: value.cpu().clone() for name, value in (shared | whole).items()}
        numbers = iter(range(sum(map(len, self._groups))))
        groups = [
            {**group, "params": [next(numbers) for _ in own]}
            for group, own in zip(self.param_groups, self._groups, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up such a state, each rank its part."""
        from deepspeed.utils import safe_set_full_optimizer_state  # pyright: ignore[reportMissingImports]

        for group, before in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in before.items() if name != "params"})
        state: Mapping[int, Mapping[str, Any]] = state_dict["state"]
        if not state:
            return
        zero = self._engine.optimizer
        first = next(iter(state.values()))
        for flat in _flat_parts(zero):
            own = {name: value.clone() for name, value in first.items() if value.ndim == 0}
            self.state[flat] = own | {name: torch.zeros_like(flat) for name, value in first.items() if value.ndim}
        _link_states(zero, self.state)
        for number, parameter in enumerate(parameter for group in self._groups for parameter in group):
            for name, value in state[number].items():
                if value.ndim:
                    safe_set_full_optimizer_state(parameter, value, name)


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


def check_trains(module: L.LightningModule, optimizer: Optimizer, stage: int, trainer: L.Trainer) -> None:
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


def _state_names(state: Mapping[Any, Mapping[str, Any]]) -> tuple[list[str], dict[str, Tensor]]:
    """Return the names of a state's tensors that are as large as their weights, and the others, which all share."""
    first = next(iter(state.values()), {})
    shared = {name: value.cpu().clone() for name, value in first.items() if value.ndim == 0}
    return [name for name in first if name not in shared], shared


def _link_states(zero: Any, state: Mapping[Any, Any]) -> None:
    """Tell weights where their part of the optimizer's state is: DeepSpeed does so once, after the first group's step,
    when others have none. Stage 3 looks it up by itself.
    """
    linkage = import_module("deepspeed.utils.mixed_precision_linkage")
    for group, flat in zip(getattr(zero, "bit16_groups", ()), _flat_parts(zero), strict=False):
        linkage.lazy_init_hp_params_optimizer_state(group, flat, state)


def _flat_parts(zero: Any) -> list[Tensor]:
    """Return the flattened parts of weights that this rank's optimizer steps."""
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        return zero.fp32_partitioned_groups_flat
    return zero.single_partition_of_fp32_groups


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
