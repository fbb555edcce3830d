from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lightning_rm.batch import PreferenceBatch, Reading
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import PairRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.metrics import pairs as pair_metrics
from lightning_rm.metrics.pairs import PairMetrics
from lightning_rm.modules import measured as measured_sets
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import warmup_schedule
from tests import methods, reference
from tests.float64 import assert_same, same
from tests.toy import LossRecorder, Rows, toy_data, toy_model, toy_module, toy_trainer, weights

FLOAT64 = {"dtype": "float64"}


def first_batch(data: PreferenceDataModule) -> PreferenceBatch:
    data.prepare_data()
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def test_the_loss_is_the_papers_equation_2() -> None:
    module, batch = toy_module(config=FLOAT64), first_batch(toy_data())
    output = module(batch)
    losses = module.losses(batch, output)
    expected = reference.ranking_loss(output.chosen.tolist(), output.rejected.tolist(), [1.0] * 4, [0.0] * 4, [1.0] * 4)
    assert losses["loss"].item() == same(expected)
    assert losses.keys() == {"loss", "ranking"}


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda mean: mean, "as a dict; it returned an object of the type Tensor"),
        (lambda mean: None, "as a dict; it returned an object of the type NoneType"),
        (lambda mean: {"ranking": mean}, "it returned 'ranking'"),
        (lambda mean: {}, "it returned an empty dict"),
        (lambda mean: {"loss": mean.expand(4)}, r"'loss' has the shape \(4,\)"),
        (lambda mean: {"loss": mean, "part": 0.5}, r"each a scalar tensor, .* 'part' is 0\.5"),
    ],
)
def test_losses_of_ones_own_that_are_none_are_a_sentence(returned: Any, told: str, tmp_path: Path) -> None:
    class OwnRM(BaselineRM):
        def losses(self, batch: PreferenceBatch, output: Any) -> Any:
            return returned((output.chosen - output.rejected).mean())

    module = OwnRM(toy_model(), partial(torch.optim.AdamW, lr=1e-3))
    with pytest.raises(ValueError, match=f"OwnRM.losses has to return the loss to minimise under 'loss', .*{told}"):
        toy_trainer(tmp_path).fit(module, toy_data())


def test_a_piece_of_another_kind_is_a_sentence() -> None:
    """A name for a model, and an optimizer that is made already: what notebooks hand over."""
    model, adamw = toy_model(), partial(torch.optim.AdamW, lr=1e-3)
    wrong: dict[str, tuple[Any, ...]] = {
        r"type str; give a reward model: RewardModel.from_pretrained\('a/name', pad_id": ("a/name", adamw),
        r"optimizer is of the type AdamW; give a function .*partial\(torch.optim.AdamW": (
            model,
            adamw(model.parameters()),
        ),
        "scheduler is of the type str; give a function": (model, adamw, "linear"),
    }
    for told, pieces in wrong.items():
        with pytest.raises(ValueError, match=told):
            BaselineRM(*pieces)


def test_margin_and_centering_are_off_until_asked_for() -> None:
    rows = [row for row in SyntheticSource(8, split="train") if isinstance(row, PairRow)]
    margins = [0.5 * number for number in range(8)]
    with_margin = [
        PairRow(row.prompt, row.chosen, row.rejected, row.id, row.prompt_id, margin=margin)
        for row, margin in zip(rows, margins, strict=True)
    ]
    data = PreferenceDataModule(world_tokenizer(), train=Rows(with_margin), batch_pairs=8)
    batch = first_batch(data)
    module = BaselineRM(toy_model(dtype="float64"), torch.optim.AdamW, margin_scale=0.25, centering=0.01)
    output = module(batch)
    losses = module.losses(batch, output)
    chosen, rejected = output.chosen.tolist(), output.rejected.tolist()
    scaled = [0.25 * margin for margin in batch.margin.tolist()]
    ranking = reference.ranking_loss(chosen, rejected, [1.0] * 8, scaled, [1.0] * 8)
    centering = sum((c + r) ** 2 for c, r in zip(chosen, rejected, strict=True)) / 8
    assert sorted(batch.margin.tolist()) == same(margins)
    assert losses["ranking"].item() == same(ranking)
    assert losses["centering"].item() == same(centering)
    assert losses["loss"].item() == same(ranking + 0.01 * centering)
    plain = BaselineRM(toy_model(dtype="float64"), torch.optim.AdamW)
    unscaled = reference.ranking_loss(chosen, rejected, [1.0] * 8, [0.0] * 8, [1.0] * 8)
    assert plain.losses(batch, output)["loss"].item() == same(unscaled)


def test_it_learns_32_pairs_by_heart(tmp_path: Path) -> None:
    data, module = toy_data(32, batch_pairs=8, num_val=40), toy_module(lr=1e-2)
    trainer = toy_trainer(tmp_path, max_epochs=16, limit_val_batches=0)
    trainer.fit(module, data)
    assert trainer.callback_metrics["train_epoch/accuracy"] == 1.0
    assert trainer.callback_metrics["train_epoch/nll"] < 0.1


def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    rows = [row for row in SyntheticSource(400, split="train", noise=0.5) if isinstance(row, PairRow)]
    data = PreferenceDataModule(
        world_tokenizer(),
        train=Rows(rows),
        test={"test": SyntheticSource(400, split="test", clean_labels=True)},
        batch_pairs=16,
    )
    module, trainer = toy_module(lr=2e-3), toy_trainer(tmp_path)
    trainer.fit(module, data)
    [metrics] = trainer.test(module, data, verbose=False)
    # Three standard errors of a fair coin over 400 pairs.
    assert abs(metrics["test/accuracy"] - 0.5) < 3 * (0.25 / 400) ** 0.5


@pytest.mark.parametrize(("accumulate", "lm_loss"), [(2, 0.0), (3, 0.0), (3, 0.5)])
def test_accumulation_equals_one_large_batch(tmp_path: Path, accumulate: int, lm_loss: float) -> None:
    """Ten pairs in one step, as one batch and as micro-batches of uneven size: the same weights after the step.

    The text of chosen responses, which are not equally long, is one mean over the tokens of all of them.
    """

    def module() -> BaselineRM:
        model = methods.model_of("float64", keep_lm_head=True)
        return BaselineRM(model, partial(torch.optim.SGD, lr=1.0), lm_loss=lm_loss).double()

    after: list[dict[str, torch.Tensor]] = []
    for pairs, window in ((10, 1), (-(-10 // accumulate), accumulate)):
        data = toy_data(10, batch_pairs=pairs, order="random")
        trainer = toy_trainer(tmp_path, accumulate_grad_batches=window, limit_val_batches=0, log_every_n_steps=1)
        trainer.fit(trained := module(), data)
        after.append(weights(trained) | {name: value.double() for name, value in trainer.callback_metrics.items()})
    start = weights(module())
    assert (
        {"train/ranking", "train_epoch/nll", *(["train/lm"] if lm_loss else [])} <= after[0].keys() == after[1].keys()
    )
    assert max((after[0][name] - start[name]).abs().max().item() for name in start) > 1e-3
    for name, value in after[0].items():
        assert_same(after[1][name], value)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_clipped_whatever_the_optimizer_and_precision(
    tmp_path: Path, fused: bool, precision: Any
) -> None:
    """One step of SGD at a rate of 1 moves the weights by the clipped gradient: by 0.01.

    To a thousandth: clipping adds 1e-6 to the norm that it divides by, and weights move by whole digits of float32.
    """
    module = BaselineRM(toy_model(), partial(torch.optim.SGD, lr=1.0, fused=fused))
    before = [weight.detach().clone() for weight in module.parameters()]
    options: dict[str, Any] = {"precision": precision, "gradient_clip_val": 0.01, "max_steps": 1}
    toy_trainer(tmp_path, limit_val_batches=0, **options).fit(module, toy_data())
    moved = [weight.detach() - old for weight, old in zip(module.parameters(), before, strict=True)]
    assert float(torch.cat([change.flatten() for change in moved]).norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_fused_optimizer_that_cannot_be_clipped_says_so(tmp_path: Path) -> None:
    module = BaselineRM(toy_model(), partial(torch.optim.SGD, lr=1.0, fused=True))
    module.trainer = L.Trainer(accelerator="cpu", gradient_clip_val=1.0, logger=False, default_root_dir=tmp_path)
    module.trainer.strategy.precision_plugin.precision = "16-mixed"
    with pytest.raises(ValueError, match=r"optimizer\.fused=false"):
        module.configure_optimizers()


def test_the_same_seed_gives_the_same_losses_whatever_came_before(tmp_path: Path) -> None:
    runs: list[list[float]] = []
    for consumed in (0, 17):
        torch.rand(consumed)
        recorder = LossRecorder()
        toy_trainer(tmp_path, callbacks=[recorder], limit_val_batches=0).fit(toy_module(seed=3), toy_data(seed=5))
        runs.append(recorder.losses)
    assert runs[0] == runs[1]
    assert len(runs[0]) == 6


def test_the_loss_curve_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    """The same pairs meet, so that two epochs of losses are the same."""
    curves: list[list[float]] = []
    for layout in LAYOUTS:
        recorder = LossRecorder()
        data = toy_data(40, layout=layout, order="length")
        trainer = toy_trainer(tmp_path, callbacks=[recorder], limit_val_batches=0, max_epochs=2)
        trainer.fit(toy_module(lr=1e-3, config=FLOAT64), data)
        curves.append(recorder.losses)
    assert len(curves[0]) == 20
    assert len(set(curves[0])) > 10
    for curve in curves[1:]:
        assert curve == same(curves[0])


def test_metrics_of_an_evaluation_are_those_of_its_pairs(tmp_path: Path) -> None:
    """Seven pairs in batches of four: the mean over pairs, not over batches."""
    module, data = toy_module(config=FLOAT64), toy_data()
    [metrics] = toy_trainer(tmp_path).validate(module, data, verbose=False)
    chosen: list[float] = []
    rejected: list[float] = []
    module.eval()
    for batch in itertools.chain(*data.val_dataloader()):
        with torch.no_grad():
            output = module(batch)
        chosen += output.chosen.tolist()
        rejected += output.rejected.tolist()
    margins = [c - r for c, r in zip(chosen, rejected, strict=True)]
    assert metrics["val/accuracy"] == same(sum(margin > 0 for margin in margins) / 7)
    assert metrics["val/margin"] == same(sum(margins) / 7)
    assert metrics["val/nll"] == same(-sum(reference.log_sigmoid(m) for m in margins) / 7)
    assert metrics["val/num_pairs"] == 7


def test_a_logged_loss_is_the_mean_over_pairs_of_uneven_batches(tmp_path: Path) -> None:
    """Four pairs, then one: the mean over five pairs, not of two means."""
    module = toy_module(lr=0.0, config=FLOAT64)
    recorder = LossRecorder()
    trainer = toy_trainer(tmp_path, log_every_n_steps=2, callbacks=[recorder])
    trainer.fit(module, toy_data(5, order="random"))
    first, second = recorder.losses
    assert float(trainer.callback_metrics["train/loss"]) == same((4 * first + second) / 5)


def test_a_module_is_fitted_on_data_of_other_subsets_too(tmp_path: Path) -> None:
    """As in a notebook: on made data, which has subsets of its own, then on a file without any."""
    module = toy_module()
    toy_trainer(tmp_path, limit_val_batches=0).fit(module, toy_data())
    rows = [row for row in SyntheticSource(5, split="train") if isinstance(row, PairRow)]
    plain = [PairRow(row.prompt, row.chosen, row.rejected, row.id, row.prompt_id) for row in rows]
    data = PreferenceDataModule(world_tokenizer(), train=Rows(plain), val=Rows(plain), batch_pairs=4)
    trainer = toy_trainer(tmp_path)
    trainer.fit(module, data)
    assert trainer.callback_metrics["train_epoch/num_pairs"] == trainer.callback_metrics["val/num_pairs"] == 5


def test_the_last_step_of_an_epoch_is_logged_though_it_has_fewer_micro_batches(tmp_path: Path) -> None:
    """Six micro-batches, four a step: steps 1 and 2, of which the second is of two."""
    trainer = toy_trainer(tmp_path, accumulate_grad_batches=4, log_every_n_steps=2)
    trainer.fit(toy_module(), toy_data())
    assert trainer.global_step == 2
    assert float(trainer.callback_metrics["train/num_pairs"]) == 24


def test_a_data_module_that_reads_another_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at the first token and this model at the last.*reading=model\.reading"):
        toy_trainer(tmp_path).fit(toy_module(), toy_data(reading=Reading("first")))


def test_a_callback_that_changes_the_micro_batches_of_a_step_is_refused(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, callbacks=[GradientAccumulationScheduler({0: 4})])
    with pytest.raises(ValueError, match="set the trainer's accumulate_grad_batches instead"):
        trainer.fit(toy_module(), toy_data())


def test_with_log_every_n_steps_0_no_step_is_logged(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, log_every_n_steps=0)
    trainer.fit(toy_module(), toy_data())
    names = trainer.callback_metrics.keys()
    assert {"train_epoch/accuracy", "val/accuracy"} <= names
    assert not any(name.startswith("train/") for name in names)


class StopAfter(L.Callback):
    """Stops a run without a planned end, as `max_time` does."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.num_steps


def test_a_run_without_a_planned_end_has_inverse_sqrt(tmp_path: Path) -> None:
    """Steps at rates of 0, 1/4, 2/4, 3/4 of 0.1 while it warms up."""
    module = toy_module(lr=0.1, scheduler=partial(warmup_schedule, name="inverse_sqrt", warmup=4))
    trainer = toy_trainer(tmp_path, max_epochs=-1, callbacks=[StopAfter(3)])
    trainer.fit(module, toy_data())
    assert trainer.global_step == 3
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr() == same([0.075] * 3)


def test_a_run_without_a_planned_end_has_no_linear_schedule(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, max_epochs=-1, callbacks=[StopAfter(3)])
    with pytest.raises(ValueError, match=r"scheduler=linear.*set trainer\.max_epochs"):
        trainer.fit(toy_module(scheduler=warmup_schedule), toy_data())


def test_a_batch_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six training batches and two of validation; one PairMetrics for the one set."""
    measured: list[int] = []
    made: list[PairMetrics] = []

    class Made(PairMetrics):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    statistics = pair_metrics.pair_statistics
    monkeypatch.setattr(
        pair_metrics, "pair_statistics", lambda chosen, *rest: measured.append(len(chosen)) or statistics(chosen, *rest)
    )
    monkeypatch.setattr(measured_sets, "PairMetrics", Made)
    toy_trainer(tmp_path, log_every_n_steps=2).fit(toy_module(), toy_data())
    assert measured == [4] * 6 + [4, 3]
    assert len(made) == 1
