"""What holds of every method: steps that are not finite change nothing and are named, and one seed gives one result."""

from __future__ import annotations

import re
import warnings
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
import yaml
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.commands._config import conf_dir
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.finite import DivergedError
from tests import methods
from tests.toy import toy_trainer, weights

METHODS = (*methods.METHODS, *methods.MEMBERS, *methods.SECOND_ORDER)
ADAMW = partial(torch.optim.AdamW, lr=1e-2)
CONF = Path(conf_dir()) / "module"
BAD_LOSS, BAD_GRADIENT = 2, 4
LAYOUTS = ("padded", "packed", "shared_prefix")
"""One a method, in turn; `python -m tests.bits` takes all."""


class Watch(L.Callback):
    """Makes a loss and a gradient infinite, and remembers the weights after each step, and each step's pairs."""

    def __init__(self) -> None:
        self.after: list[dict[str, Tensor]] = []
        self.rows: list[list[int]] = []
        self.trained: list[str] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairwiseRM)
        losses = pl_module.losses

        def infinite(batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
            found = losses(batch, output)
            return {**found, "loss": found["loss"] + torch.inf} if len(self.after) == BAD_LOSS else found

        pl_module.losses = infinite
        trained = {name: weight for name, weight in pl_module.named_parameters() if weight.requires_grad}
        of_model = [weight for name, weight in trained.items() if name.startswith("model.")]
        of_model[-1].register_hook(lambda grad: grad * torch.inf if len(self.after) == BAD_GRADIENT else grad)
        self.trained = list(trained)

    def on_train_batch_end(self, trainer: Any, pl_module: L.LightningModule, outputs: Any, batch: Any, _: int) -> None:
        self.after.append(weights(pl_module))
        self.rows.append(batch.row.tolist())


class Run(NamedTuple):
    watch: Watch
    said: list[str]
    metrics: dict[str, float]
    names: dict[int, str]


def fit(method: str, folder: Path, watch: Watch, **options: Any) -> Run:
    """Six steps of four pairs in float32, with dropout where the method has it."""
    torch.manual_seed(0)
    module = methods.module_of(method, "float32", ADAMW, **options)
    layout = LAYOUTS[METHODS.index(method) % len(LAYOUTS)]
    data = methods.data_of(method, folder, 4, train=methods.training_rows(method, 32), layout=layout)
    trainer = toy_trainer(folder, max_steps=6, log_every_n_steps=1, callbacks=[watch])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    names = {row: data.name_of_pair(row) for step in watch.rows for row in step}
    return Run(watch, [str(each.message) for each in caught], metrics, names)


@pytest.fixture(scope="module", params=METHODS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Run]:
    folder = tmp_path_factory.mktemp("run")
    return request.param, folder, fit(request.param, folder, Watch())


def test_a_loss_or_a_gradient_that_is_not_finite_changes_nothing_and_is_named(ran: tuple[str, Path, Run]) -> None:
    method, _, run = ran
    after, trained = run.watch.after, run.watch.trained
    changed = [any(not torch.equal(one[name], other[name]) for name in trained) for one, other in pairwise(after)]
    assert changed == [True, False, True, False, True]
    said = [text for text in run.said if "is not finite" in text]
    # The gradient of an exact ascent is what the loss above it is made of.
    causes = ("loss", "loss" if method in methods.SECOND_ORDER else "gradient")
    for step, what, text in zip((BAD_LOSS, BAD_GRADIENT), causes, said, strict=True):
        named = re.fullmatch(rf"optimizer step {step}: the {what} of (.*) is not finite, and nothing is changed", text)
        assert named is not None
        assert named[1].split(", ") == list(dict.fromkeys(run.names[row] for row in run.watch.rows[step]))
    assert run.metrics["train/skipped_steps"] == 2
    assert run.metrics["train/gradient_spikes"] == 0
    assert all(value.isfinite().all() for value in after[-1].values() if value.is_floating_point())


def test_one_seed_is_one_run_bit_for_bit_and_one_bad_step_ends_it_if_asked(ran: tuple[str, Path, Run]) -> None:
    method, folder, first = ran
    with pytest.raises(DivergedError, match="1 optimizer step in a row had a loss or a gradient that is not finite"):
        fit(method, folder, second := Watch(), max_skipped=1)
    assert len(second.after) == BAD_LOSS + 1
    assert second.rows == first.watch.rows[: BAD_LOSS + 1]
    for found, expected in zip(second.after, first.watch.after, strict=False):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_no_module_is_missing_here() -> None:
    """Every yaml of a module, by its class."""
    named = {yaml.safe_load(path.read_text())["_target_"] for path in CONF.glob("*.yaml")}
    here = {f"{type(module).__module__}.{type(module).__name__}" for module in map(methods.module_of, METHODS)}
    assert here == named
