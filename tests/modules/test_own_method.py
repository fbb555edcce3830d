"""A method of one's own: what it adds is trained, saved and gone on with, as in any LightningModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.prepared import shard_for
from lightning_rm.modules.unfrozen import check_unfrozen
from tests import methods
from tests.toy import toy_data, toy_model, toy_trainer, weights

ADAMW: Any = methods.partial(torch.optim.AdamW, lr=1e-2)
BACKBONE = "model.backbone.model.layers.0.self_attn.q_proj.weight"


class Tempered(PairwiseRM):
    """Learns a temperature of its own, a parameter that is no module's, and a probe of the feature."""

    def __init__(self, model: Any, optimizer: Any, scale: float, **options: Any) -> None:
        super().__init__(model, optimizer, **options)
        self.scale = scale
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.probe = nn.Linear(model.hidden_size, 1)

    def losses(self, batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
        margin = (output.chosen - output.rejected) * self.temperature
        return {"loss": self.scale * -logsigmoid(margin).mean() + self.probe(output.feature).square().mean()}


class Described(Tempered):
    def __init__(self, model: Any, optimizer: Any, scale: float, **options: Any) -> None:
        super().__init__(model, optimizer, scale, **options)
        self.save_hyperparameters(ignore=["model", "optimizer"])


class OwnOptimizer(Tempered):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)}


def module_of(method: type[Tempered] = Tempered) -> Tempered:
    torch.manual_seed(0)
    return method(toy_model(), ADAMW, scale=2.0)


@pytest.mark.parametrize("method", [Tempered, OwnOptimizer])
def test_what_it_adds_is_trained_saved_and_gone_on_with(method: type[Tempered], tmp_path: Path) -> None:
    every = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=4)
    before = weights(module := module_of(method))
    toy_trainer(tmp_path, callbacks=[every], enable_checkpointing=True, max_epochs=2).fit(module, toy_data())
    after = weights(module)
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    toy_trainer(tmp_path, max_epochs=2).fit(again := module_of(method), toy_data(), ckpt_path=tmp_path / "step=4.ckpt")
    assert all(torch.equal(after[name], value) for name, value in weights(again).items())


def test_a_checkpoint_needs_no_argument_that_it_has_or_that_need_not_be_given(tmp_path: Path) -> None:
    toy_trainer(tmp_path, max_steps=1).fit(told := module_of(), toy_data())
    told.trainer.save_checkpoint(tmp_path / "told.ckpt")
    with pytest.raises(ValueError, match=r"Tempered\.load_from_checkpoint needs scale=\.\.\., as the run"):
        Tempered.load_from_checkpoint(tmp_path / "told.ckpt")
    assert torch.equal(Tempered.load_from_checkpoint(tmp_path / "told.ckpt", scale=2.0).temperature, told.temperature)
    toy_trainer(tmp_path, max_steps=1).fit(kept := module_of(Described), toy_data())
    kept.trainer.save_checkpoint(tmp_path / "kept.ckpt")
    assert Described.load_from_checkpoint(tmp_path / "kept.ckpt").scale == 2.0


def test_fsdp2_shards_modules_and_no_parameter_by_itself() -> None:
    strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1)
    with pytest.raises(ValueError, match=r"Tempered\.temperature is a parameter by itself, and FSDP2 shards modules"):
        shard_for(strategy, "32-true", (module := module_of()).model, module)


class InStages(Tempered):
    """Trains all but the backbone in the first epoch."""

    def on_train_epoch_start(self) -> None:
        for parameter in self.model.backbone_parameters():
            parameter.requires_grad_(self.current_epoch > 0)


class Moved(L.Callback):
    """Whether the backbone moved, by epoch."""

    def __init__(self) -> None:
        self.moved: list[bool] = []
        self._before = torch.empty(0)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._before = weights(pl_module)[BACKBONE]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.moved.append(not torch.equal(self._before, weights(pl_module)[BACKBONE]))


class Unfreeze(BaseFinetuning):
    def freeze_before_training(self, pl_module: L.LightningModule) -> None:
        self.freeze(cast(nn.Module, cast(PairwiseRM, pl_module).model.plain_models[0].backbone.base_model))

    def finetune_function(self, pl_module: L.LightningModule, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        if epoch == 1:
            backbone = cast(nn.Module, cast(PairwiseRM, pl_module).model.plain_models[0].backbone.base_model)
            self.unfreeze_and_add_param_group(backbone, optimizer, lr=1e-3)


def test_layers_are_frozen_and_unfrozen_between_epochs(tmp_path: Path) -> None:
    toy_trainer(tmp_path, max_epochs=2, callbacks=[seen := Moved()]).fit(module_of(InStages), toy_data())
    assert seen.moved == [False, True]
    toy_trainer(tmp_path, max_epochs=2, callbacks=[Unfreeze(), seen := Moved()]).fit(module_of(), toy_data())
    assert seen.moved == [False, True]


@pytest.mark.parametrize("when", ["epoch", "step"])
def test_what_no_optimizer_steps_is_not_unfrozen(when: str, tmp_path: Path) -> None:
    class Late(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if when == "epoch":
                pl_module.requires_grad_(trainer.current_epoch > 0)
                cast(Tempered, pl_module).probe.requires_grad_()

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            if when == "step" and trainer.global_step == 2:
                pl_module.requires_grad_()

    module = module_of().requires_grad_(requires_grad=False)
    module.probe.requires_grad_()
    told = r"temperature and 21 others: frozen when training began, .* the optimizer has not got it: freeze it when"
    with pytest.raises(ValueError, match=told):
        toy_trainer(tmp_path, max_epochs=2, callbacks=[Late()], log_every_n_steps=3).fit(module, toy_data())


def test_ddp_averages_no_gradient_of_what_is_unfrozen() -> None:
    class Two(DDPStrategy):
        world_size = 2

    module = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"weight and 1 other: .* DDP would not average its gradient: freeze"):
        check_unfrozen(module, set(), optimizer, Two())
    check_unfrozen(module, set(), optimizer, DDPStrategy())


def test_meta_climbs_by_what_is_trained_in_each_step(tmp_path: Path) -> None:
    """`relative` is a share of the norm of the moved weights: of the head's alone at first, then of all."""
    lengths: list[float] = []

    class Lengths(Unfreeze):
        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
            lengths.append(len(cast(Any, pl_module).climb.ascent.parameters))

    module = methods.module_of("meta", "float32", ADAMW)
    data = methods.data_of("meta", tmp_path, 8)
    toy_trainer(tmp_path, max_epochs=2, callbacks=[Lengths()]).fit(module, data)
    assert lengths == [1] * 4 + [21] * 4
