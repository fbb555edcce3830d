"""The CSV of a run that stops and goes on is that of the run that never stopped."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from lightning_rm.callbacks import GoOn, ResumeCheckpoint
from lightning_rm.loggers import QuietWandbLogger, ResumableCSVLogger, TrackioLogger, Utf8Files, tensorboard_logger
from tests.float64 import same
from tests.toy import toy_data, toy_module, toy_trainer

pytestmark = pytest.mark.filterwarnings("error:Experiment logs directory")


class EndAt(L.Callback):
    """An end in a hook when it is called for the n-th time, counted from 0."""

    def __init__(self, hook: str, number: int, end: BaseException) -> None:
        self.number = number
        self.end = end
        setattr(self, hook, self._called)

    def _called(self, *_: Any) -> None:
        if self.number == 0:
            raise self.end
        self.number -= 1


def fit(folder: Path, resume: Path | None = None, extra: Sequence[L.Callback] = (), **options: Any) -> L.Trainer:
    """Two epochs of six steps, validated after each; what was logged lies in `FOLDER/csv/metrics.csv`."""
    L.seed_everything(1, verbose=False)
    callbacks: list[L.Callback] = [
        ResumeCheckpoint(folder / "checkpoints" / "resume.ckpt", 4),
        GoOn(),
        LearningRateMonitor("step"),
    ]
    logger = ResumableCSVLogger(folder, "", "csv")
    options = {"max_epochs": 2, "log_every_n_steps": 1, **options}
    trainer = toy_trainer(folder, logger=logger, callbacks=[*callbacks, *extra], **options)
    logger.log_hyperparams({"seed": 1})
    trainer.fit(toy_module(), toy_data(), ckpt_path=resume, weights_only=True)
    return trainer


def cells(folder: Path) -> dict[tuple[int, str], float]:
    """Steps and metrics, none of them twice, in the order of the steps, each with the epoch that its row says."""
    found: dict[tuple[int, str], float] = {}
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert int(row["step"]) >= max((step for step, _ in found), default=0)
            for name, cell in row.items():
                if cell and name not in ("step", "epoch"):
                    assert (int(row["step"]), name) not in found
                    found[int(row["step"]), name] = float(cell)
                    found[int(row["step"]), f"epoch of {name}"] = float(row["epoch"] or -1)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], float]:
    folder = tmp_path_factory.mktemp("whole")
    fit(folder)
    return cells(folder)


@pytest.mark.parametrize(
    ("hook", "number", "end"),
    [
        ("on_train_batch_start", 7, RuntimeError("the machine fails")),  # what was logged since step 4 is logged again
        ("on_train_batch_start", 9, KeyboardInterrupt()),
        ("on_validation_batch_end", 1, KeyboardInterrupt()),
        ("on_validation_batch_start", 2, KeyboardInterrupt()),  # what follows is of a step that has logged
        ("on_validation_end", 0, KeyboardInterrupt()),  # that of step 5 is logged, and takes place again
    ],
)
def test_a_resumed_run_has_every_row_once(
    tmp_path: Path, whole: dict[tuple[int, str], float], hook: str, number: int, end: BaseException
) -> None:
    assert [step for step, name in whole if name == "train/loss"] == list(range(12))
    assert [step for step, name in whole if name == "val/nll"] == [5, 11]
    with pytest.raises((RuntimeError, SystemExit)):
        fit(tmp_path, extra=[EndAt(hook, number, end)])
    before = cells(tmp_path)
    assert 0 < len(before) < len(whole)
    fit(tmp_path, tmp_path / "checkpoints" / "resume.ckpt")
    assert cells(tmp_path) == same(whole)


def test_a_run_that_goes_on_in_another_folder_has_the_earlier_steps(
    tmp_path: Path, whole: dict[tuple[int, str], float]
) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path / "a", extra=[EndAt("on_train_batch_start", 9, KeyboardInterrupt())])
    before = (tmp_path / "a" / "csv" / "metrics.csv").read_bytes()
    fit(tmp_path / "b", tmp_path / "a" / "checkpoints" / "resume.ckpt")
    assert cells(tmp_path / "b") == same(whole)
    assert (tmp_path / "a" / "csv" / "metrics.csv").read_bytes() == before


def test_a_run_that_cannot_go_on_loses_nothing(tmp_path: Path) -> None:
    fit(tmp_path)
    file = tmp_path / "csv" / "metrics.csv"
    before = file.read_bytes()
    end = EndAt("on_train_start", 0, RuntimeError("other data"))
    with pytest.raises(RuntimeError, match="other data"):
        fit(tmp_path, tmp_path / "checkpoints" / "resume.ckpt", [end])
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["hparams.yaml", "metrics.csv"]


def test_an_evaluation_of_other_weights_takes_nothing_away(tmp_path: Path) -> None:
    """It reads a checkpoint too, of step 8; what it logs follows the last step."""
    trainer = fit(tmp_path)
    before = cells(tmp_path)
    trainer.validate(
        toy_module(), toy_data(), ckpt_path=tmp_path / "checkpoints" / "resume.ckpt", weights_only=True, verbose=False
    )
    after = cells(tmp_path)
    assert before.items() < after.items()
    assert {step for step, _ in after.keys() - before.keys()} == {12}


@pytest.mark.parametrize("at_end", [False, True])
def test_a_finished_run_that_goes_on_keeps_its_last_step(tmp_path: Path, at_end: bool) -> None:
    """No batch is left, but the epoch's end, whose means are of step 11 again; what follows training is of step 12."""
    last = ModelCheckpoint(tmp_path / "last", "last", every_n_epochs=1, save_on_train_epoch_end=at_end)
    fit(tmp_path, extra=[last], enable_checkpointing=True)
    before = cells(tmp_path)
    trainer = fit(tmp_path, tmp_path / "last" / "last.ckpt")
    trainer.validate(toy_module(), toy_data(), verbose=False)
    trainer.test(toy_module(), toy_data(), verbose=False)
    after = cells(tmp_path)
    assert before.items() < after.items()
    assert {step for step, _ in after.keys() - before.keys()} == {12}


def test_a_run_that_begins_anew_keeps_nothing(tmp_path: Path) -> None:
    fit(tmp_path)
    fit(tmp_path, max_steps=2)
    assert {step for step, _ in cells(tmp_path)} == {0, 1}


def test_a_full_disk_costs_the_log_nothing(tmp_path: Path) -> None:
    """A new column has the file written anew: beside it. Half a row, with a step that is not its own, is not read."""
    fit(tmp_path, max_epochs=1)
    file = tmp_path / "csv" / "metrics.csv"
    before = file.read_bytes()
    with pytest.raises(OSError, match="No space left") as caught, Utf8Files().open(str(file), "w") as opened:  # noqa: PT012
        opened.write("step")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (caught.value.filename, file.read_bytes()) == (str(file), before)
    place = file.read_text().splitlines()[0].split(",").index("step")
    file.write_bytes(before + b"," * place + b"1")  # of 17
    fit(tmp_path, tmp_path / "checkpoints" / "resume.ckpt", max_epochs=1)
    assert file.read_bytes() == before


def test_trackio_is_handed_numbers_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the calls of trackio 0.43; without the package the way out is named."""
    calls: list[Any] = []

    class Run:
        def log(self, metrics: dict[str, float], step: int | None = None) -> None:
            calls.append((metrics, step))

        def finish(self) -> None:
            calls.append("finished")

    def init(**options: Any) -> Run:
        calls.append(options)
        return Run()

    monkeypatch.setattr("lightning_rm.loggers.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-rm\[trackio\]'"):
        TrackioLogger("project", "run")
    with pytest.raises(ValueError, match=r"pip install 'lightning-rm\[tensorboard\]'"):
        tensorboard_logger("run")
    monkeypatch.setattr("lightning_rm.loggers.find_spec", lambda _: True)
    monkeypatch.setattr("lightning_rm.loggers.import_module", lambda _: SimpleNamespace(init=init))
    logger = TrackioLogger("project", str(Path("runs", "one").absolute()), "group")
    assert (logger.name, logger.version) == ("project", "runs/one")
    logger.log_metrics({"train/loss": torch.tensor(0.5)}, step=3)
    logger.finalize("success")
    options = {"project": "project", "name": "runs/one", "group": "group", "resume": "never", "embed": False}
    assert calls == [options, ({"train/loss": 0.5}, 3), "finished"]
    logger.log_metrics({"test/accuracy": torch.tensor(0.5)}, step=4)  # once it is trained
    assert calls[-2] == {**options, "resume": "allow"}
    for fn, resume in ((TrainerFn.TESTING, "never"), (TrainerFn.FITTING, "allow")):
        logger = TrackioLogger("project", "run")
        trainer: Any = SimpleNamespace(loggers=[logger], early_stopping_callbacks=[], state=SimpleNamespace(fn=fn))
        GoOn().on_load_checkpoint(trainer, cast(Any, None), {})
        logger.log_metrics({"train/loss": torch.tensor(0.5)}, step=4)
        assert calls[-2]["resume"] == resume


def test_a_run_that_w_and_b_was_sent_goes_on_there_as_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`version` is the id that it is begun with. One that was kept offline is not known there yet."""

    def begun(offline: bool = False, **options: Any) -> object:
        (logger := QuietWandbLogger(save_dir=str(tmp_path), offline=offline, **options)).go_on(tmp_path)
        assert logger._wandb_init["id"] == logger.version
        return logger.version

    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    (tmp_path / "wandb" / "offline-run-20260103_000000-kept").mkdir(parents=True)
    assert begun() is None
    for name in ("run-20260102_000000-of-two", "run-20260101_000000-one"):
        (tmp_path / "wandb" / name).mkdir()
    assert (begun(), begun(offline=True), begun(id="mine")) == ("of-two", None, "mine")
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    assert begun() is None
