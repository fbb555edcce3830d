"""A run that stops and goes on is the run that never stopped, bit for bit: losses, weights, dropout included."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_rm.callbacks import ResumeCheckpoint
from tests.float64 import same
from tests.toy import LossRecorder, toy_data, toy_module, toy_trainer, weights

DROPOUT = {"attention_dropout": 0.1}
pytestmark = pytest.mark.filterwarnings("ignore:(Checkpoint directory|The dirpath has changed).*")


def run(
    folder: Path, resume: Path | None = None, num_workers: int = 0, **options: Any
) -> tuple[list[float], L.LightningModule]:
    L.seed_everything(1 if resume is None else 999, verbose=False)
    recorder = LossRecorder()
    callbacks = [recorder, *options.pop("callbacks", [])]
    module = toy_module(config=DROPOUT)
    trainer = toy_trainer(folder, callbacks=callbacks, **options)
    trainer.fit(module, toy_data(num_workers=num_workers), ckpt_path=resume, weights_only=True)
    return recorder.losses, module


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[list[float], L.LightningModule]]:
    """The run that never stopped, by how many micro-batches make a step, once."""
    return cache(lambda accumulate: run(tmp_path_factory.mktemp("whole"), **_two_epochs(accumulate)))


def _two_epochs(accumulate: int) -> dict[str, Any]:
    return {"max_epochs": 2, "accumulate_grad_batches": accumulate}


@pytest.mark.parametrize(("every", "num_workers", "accumulate"), [(6, 0, 1), (4, 0, 1), (4, 2, 1), (2, 0, 2)])
def test_resume_is_bit_exact(
    tmp_path: Path,
    two_epochs: Callable[[int], tuple[list[float], L.LightningModule]],
    every: int,
    num_workers: int,
    accumulate: int,
) -> None:
    """Six micro-batches an epoch: stopped after 6 (the epoch's end) and after 4 (inside it)."""
    options = _two_epochs(accumulate)
    whole, finished = two_epochs(accumulate)
    checkpoint = ModelCheckpoint(
        tmp_path / "ckpt", filename="{step}", every_n_train_steps=every, save_top_k=-1, save_on_train_epoch_end=False
    )
    first, _ = run(tmp_path / "first", callbacks=[checkpoint], enable_checkpointing=True, max_steps=every, **options)
    stopped = tmp_path / "ckpt" / f"step={every}.ckpt"
    rest, resumed = run(tmp_path / "rest", resume=stopped, num_workers=num_workers, **options)
    assert len(whole) == 12
    assert first + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


class StopAt(L.Callback):
    """An early stop after some micro-batches, as of a callback that watches a training metric."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.after -= 1
        trainer.should_stop = trainer.should_stop or self.after == 0


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("early", [True, False])
def test_an_epoch_that_was_cut_short_goes_on(
    tmp_path: Path,
    two_epochs: Callable[[int], tuple[list[float], L.LightningModule]],
    accumulate: int,
    early: bool,
) -> None:
    """By an early stop or `max_steps`, after two micro-batches of the second epoch's six; a second end comes later."""
    options, checkpoint = _two_epochs(accumulate), tmp_path / "resume.ckpt"
    whole, finished = two_epochs(accumulate)
    losses: list[float] = []
    for end in (8, 10):
        stops: dict[str, Any] = {} if early else {"max_steps": end // accumulate}
        every = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=True)
        callbacks = [ResumeCheckpoint(checkpoint), every, *([StopAt(end - len(losses))] if early else [])]
        resume = tmp_path / f"step={len(losses) // accumulate}.ckpt" if losses else None
        part, _ = run(tmp_path, resume, callbacks=callbacks, enable_checkpointing=True, **stops, **options)
        losses += part
        assert len(losses) == end
    resume = tmp_path / f"step={10 // accumulate}.ckpt"
    rest, resumed = run(tmp_path, resume, callbacks=[ResumeCheckpoint(checkpoint)], **options)
    assert losses + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.last_epoch == finished.last_epoch


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_run_that_is_resumed_at_its_end_has_its_last_epochs_metrics(tmp_path: Path, at_the_end: bool) -> None:
    """Killed after the last checkpoint, while it was measured: nothing is left to train."""
    timing: dict[str, Any] = {"every_n_epochs": 1} if at_the_end else {"every_n_train_steps": 12}
    checkpoint = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, save_on_train_epoch_end=at_the_end, **timing)
    losses, finished = run(tmp_path / "whole", max_epochs=2, callbacks=[checkpoint], enable_checkpointing=True)
    rest, resumed = run(tmp_path / "rest", resume=tmp_path / "step=12.ckpt", max_epochs=2)
    assert (len(losses), rest) == (12, [])
    assert finished.last_epoch["num_pairs"] == 24
    assert resumed.last_epoch == finished.last_epoch


class Interrupt(L.Callback):
    """Ctrl-C before the micro-batch of a given number."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.at:
            raise KeyboardInterrupt


def test_a_run_goes_on_after_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, finished = run(tmp_path / "whole")
    stopped = tmp_path / "interrupted.ckpt"
    recorder = LossRecorder()
    L.seed_everything(1, verbose=False)
    trainer = toy_trainer(tmp_path / "first", callbacks=[recorder, Interrupt(4), ResumeCheckpoint(stopped)])
    with pytest.raises(SystemExit):
        trainer.fit(toy_module(config=DROPOUT), toy_data())
    assert f"stopped after 4 steps; go on with 'resume=\"{stopped}\"'" in capsys.readouterr().out
    rest, resumed = run(tmp_path / "rest", resume=stopped)
    assert recorder.losses + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


class InterruptAt(L.Callback):
    """Ctrl-C, or another end, in a hook when it is called for the n-th time, counted from 0."""

    def __init__(self, hook: str, number: int, end: BaseException | None = None) -> None:
        self.number = number
        self.end = KeyboardInterrupt() if end is None else end
        setattr(self, hook, self._called)

    def _called(self, *_: Any) -> None:
        if self.number == 0:
            raise self.end
        self.number -= 1


class Rows(DummyLogger):
    """What was logged at which step; -1 for NaN, which equals nothing."""

    def __init__(self, end: InterruptAt | None = None) -> None:
        super().__init__()
        self.values: dict[tuple[int, str], float] = {}
        self.logged = getattr(end, "log_metrics", lambda: None)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:  # pyright: ignore
        for name, value in metrics.items():
            assert name == "epoch" or (step, name) not in self.values, f"{name} is logged twice at step {step}"
            self.values[step, name] = -1.0 if math.isnan(value) else value
        self.logged()


class Part:
    """A run from its beginning, or from a checkpoint, to its end or an interruption."""

    def __init__(
        self,
        folder: Path,
        resume: Path | None = None,
        every: int | None = None,
        end: InterruptAt | None = None,
        **options: Any,
    ) -> None:
        self.checkpoint = folder / "resume.ckpt"
        self.best = ModelCheckpoint(folder / "best", "best", monitor="val/nll", save_last=True)
        self.rows = Rows(end)
        extra = [*options.pop("callbacks", []), *([end] if end else [])]
        options = {"max_epochs": 3, "log_every_n_steps": 2, "logger": self.rows, **options}
        callbacks = [self.best, ResumeCheckpoint(self.checkpoint, every), *extra]
        try:
            self.losses, module = run(folder, resume, enable_checkpointing=True, callbacks=callbacks, **options)
            self.weights = weights(module)
            self.loops = module.trainer.fit_loop.state_dict()
        except (SystemExit, RuntimeError):
            self.losses = []


def assert_same_run(whole: Part, *parts: Part) -> None:
    """The parts of a run, of which the last got to the end, logged what the whole logged and are where it is."""
    logged: dict[tuple[int, str], float] = {}
    for part in parts:
        again = logged.keys() & part.rows.values.keys()
        assert all(name == "epoch" for _, name in again), "what was logged before the interruption is logged again"
        logged |= part.rows.values
    assert logged == same(whole.rows.values)
    assert parts[-1].losses == whole.losses[-len(parts[-1].losses) :]
    assert all(torch.equal(parts[-1].weights[name], value) for name, value in whole.weights.items())
    assert parts[-1].best.best_model_score == whole.best.best_model_score


VALIDATIONS: dict[str, dict[str, Any]] = {
    "an epoch": {},
    "half an epoch": {"val_check_interval": 3},
    "a step of two": {"accumulate_grad_batches": 2},
}


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Part]:
    """The run that never stopped, of each way to validate, once."""
    runs: dict[str, Part] = {}

    def of(every: str) -> Part:
        if every not in runs:
            runs[every] = Part(tmp_path_factory.mktemp("whole"), **VALIDATIONS[every])
        return runs[every]

    return of


@pytest.mark.parametrize("every", VALIDATIONS)
@pytest.mark.parametrize(
    ("hook", "number"),
    [
        ("on_validation_batch_start", 0),
        ("on_validation_batch_end", 1),
        ("on_after_backward", 2),
        ("on_train_batch_start", 6),
    ],
)
def test_ctrl_c_anywhere_changes_nothing(
    tmp_path: Path,
    whole_of: Callable[[str], Part],
    every: str,
    hook: str,
    number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a validation, of which there are two batches, in the middle of a batch, in the first batch of an epoch."""
    whole, options = whole_of(every), VALIDATIONS[every]
    assert {"train/loss", "train_epoch/accuracy", "val/nll"} <= {name for _, name in whole.rows.values}
    first = Part(tmp_path, end=InterruptAt(hook, number), **options)
    assert f"go on with 'resume=\"{first.checkpoint}\"'" in capsys.readouterr().out
    assert_same_run(whole, first, Part(tmp_path, first.checkpoint, **options))


@pytest.mark.parametrize("hook", ["on_train_batch_end", "log_metrics"])
def test_ctrl_c_between_the_last_batch_and_its_validation(tmp_path: Path, hook: str) -> None:
    """Nothing is trained again, and the validation takes place. Steps 3, 6, ... are logged, or 4, 8, ..."""
    options: dict[str, Any] = {"log_every_n_steps": 3 if hook == "log_metrics" else 4}
    whole = Part(tmp_path / "whole", **options)
    folder = tmp_path / "parts"
    first = Part(folder, end=InterruptAt(hook, 1 if hook == "log_metrics" else 5), **options)
    rest = Part(folder, first.checkpoint, **options)
    assert len(rest.losses) == 12
    assert_same_run(whole, first, rest)


@pytest.mark.parametrize(("every", "batch"), [("an epoch", 12), ("half an epoch", 12), ("half an epoch", 15)])
def test_a_validation_is_counted_once(tmp_path: Path, whole_of: Callable[[str], Part], every: str, batch: int) -> None:
    """Stopped before the first batch of the last epoch, or after a validation within it: checkpoints count batches of
    validations, and Lightning would count those of one that a resumed run does not repeat."""
    whole, options = whole_of(every), VALIDATIONS[every]
    first = Part(tmp_path, end=InterruptAt("on_train_batch_start", batch), **options)
    rest = Part(tmp_path, first.checkpoint, **options)
    assert rest.loops == whole.loops
    assert_same_run(whole, first, rest)


def test_ctrl_c_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    """In the sanity check, which is a validation, too."""
    for hook in ("on_validation_batch_start", "on_train_batch_start"):
        part = Part(tmp_path, end=InterruptAt(hook, 0), num_sanity_val_steps=1)
        assert not part.checkpoint.exists()


def test_ctrl_c_after_training_says_nothing_of_resuming(tmp_path: Path) -> None:
    checkpoint = ResumeCheckpoint(tmp_path / "resume.ckpt")
    trainer = toy_trainer(tmp_path, callbacks=[checkpoint, InterruptAt("on_test_batch_start", 0)])
    module = toy_module()
    trainer.fit(module, toy_data())
    with pytest.raises(SystemExit):
        trainer.test(module, toy_data())
    assert not checkpoint.path.exists()


@pytest.mark.parametrize("hook", ["on_validation_batch_start", "on_after_backward"])
def test_what_is_saved_after_an_interruption_can_be_gone_on_from(
    tmp_path: Path, whole_of: Callable[[str], Part], hook: str
) -> None:
    """Lightning counts the batch, or the validation, that was interrupted: its next checkpoints must not.

    The first run ends within its third batch or in the validation after it; the second saves after that validation, and
    after its eighth batch; a third goes on from either.
    """
    whole, options = whole_of("half an epoch"), VALIDATIONS["half an epoch"]
    first = Part(tmp_path / "first", end=InterruptAt(hook, 0 if "validation" in hook else 2), **options)
    saves = [
        ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=8, save_top_k=-1),
        ModelCheckpoint(tmp_path, "{step}", every_n_epochs=1, save_top_k=-1),
    ]
    Part(tmp_path / "second", first.checkpoint, callbacks=saves, **options)
    third = Part(tmp_path / "third", tmp_path / "step=8.ckpt", **options)
    assert third.losses == whole.losses[8:]
    third = Part(tmp_path / "third", tmp_path / "step=3.ckpt", **options)
    assert third.losses == whole.losses[3:]
    assert [step for step, name in third.rows.values if name == "val/nll"] == [5, 8, 11, 14, 17]


@pytest.mark.parametrize("every", VALIDATIONS)
@pytest.mark.parametrize(("steps", "fails_at"), [(2, 5), (3, 10), (6, 13)])
def test_a_run_that_dies_goes_on_from_its_last_checkpoint(
    tmp_path: Path, whole_of: Callable[[str], Part], every: str, steps: int, fails_at: int
) -> None:
    """After a step within an epoch, one that a validation follows, the last of an epoch; it dies at a micro-batch."""
    whole, options = whole_of(every), VALIDATIONS[every]
    died = InterruptAt("on_train_batch_start", fails_at, RuntimeError("the machine fails"))
    first = Part(tmp_path, every=steps, end=died, **options)
    accumulate = options.get("accumulate_grad_batches", 1)
    done = fails_at // accumulate // steps * steps
    first.rows.values = {(step, name): value for (step, name), value in first.rows.values.items() if step < done}
    rest = Part(tmp_path, first.checkpoint, every=steps, **options)
    assert len(rest.losses) == 18 - done * accumulate
    assert_same_run(whole, first, rest)


def test_a_checkpoint_that_is_not_asked_for_is_not_written(tmp_path: Path) -> None:
    assert not Part(tmp_path).checkpoint.exists()
    with pytest.raises(ValueError, match="every_n_train_steps=0: give 1 or more"):
        ResumeCheckpoint(tmp_path, 0)
