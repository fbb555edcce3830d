"""A signal ends a run between two batches, with a checkpoint, and its exit code says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop  # pyright: ignore[reportPrivateUsage]

from lightning_rm.callbacks import ResumeCheckpoint, Stop
from lightning_rm.callbacks import stop as module
from tests.toy import LossRecorder, toy_data, toy_module, toy_trainer


class Send(L.Callback):
    """Sends this process a signal while the batch of a given number is worked on, or several times."""

    def __init__(self, number: signal.Signals, hook: str, batch: int = 3, times: int = 1) -> None:
        self.number, self.batch, self.times = number, batch, times
        self.seen = -1
        setattr(self, hook, self._called)

    def _called(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def run(folder: Path, *callbacks: L.Callback, **options: Any) -> tuple[Stop, list[float]]:
    stop, losses = Stop(), LossRecorder()
    checkpoint = ResumeCheckpoint(folder / "checkpoints" / "resume.ckpt")
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    before = [signal.getsignal(number) for number in heard]
    trainer = toy_trainer(folder, callbacks=[stop, checkpoint, losses, *callbacks], **options)
    try:
        trainer.fit(toy_module(), toy_data(), weights_only=True)
    except SystemExit:
        assert stop.signal is not None
    assert [signal.getsignal(number) for number in heard] == before
    return stop, losses.losses


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("hook", ["on_before_backward", "on_before_optimizer_step", "on_train_batch_end"])
def test_a_signal_stops_before_the_next_batch(
    number: signal.Signals, hook: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the batch that is worked on is lost, and no half of a step is saved."""
    whole = run(tmp_path / "whole")[1]
    stop, losses = run(tmp_path, Send(number, hook))
    assert (stop.signal, stop.exit_code) == (number, 128 + number)
    assert losses == whole[:4]
    said = capfd.readouterr()
    assert "stopping before the next batch" in said.err
    assert f"stopped after 4 steps; go on with 'resume=\"{tmp_path}/checkpoints/resume.ckpt\"'" in said.out


def test_a_signal_in_a_validation_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop, losses = run(tmp_path, Send(signal.SIGTERM, "on_validation_batch_end", 0), max_epochs=2)
    assert (stop.exit_code, len(losses)) == (143, 6)
    assert "stopped after 6 steps; go on with" in capsys.readouterr().out


def test_a_closed_terminal_stops_a_run_and_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, as the system sends it; under `nohup` it is ignored, as before."""
    left: list[int] = []
    monkeypatch.setattr(module, "leave_terminal", lambda: left.append(1))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under it
    try:
        stop, losses = run(tmp_path / "a", Send(signal.SIGHUP, "on_before_backward", times=2))
        assert (stop.exit_code, len(losses), len(left)) == (129, 4, 2)
        assert (tmp_path / "a" / "checkpoints" / "resume.ckpt").is_file()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert len(run(tmp_path / "b", Send(signal.SIGHUP, "on_before_backward"))[1]) == 6
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """Before the step is taken."""
    stop, losses = run(tmp_path, Send(signal.SIGINT, "on_before_backward", times=2))
    assert (stop.exit_code, len(losses)) == (130, 3)


def test_a_machine_that_asks_again_waits(tmp_path: Path) -> None:
    """As Slurm does when the time is up that it gave notice of: the batch is finished, and all of it saved."""
    stop, losses = run(tmp_path, Send(signal.SIGTERM, "on_before_backward", times=2))
    assert (stop.exit_code, len(losses)) == (143, 4)
    assert (tmp_path / "checkpoints" / "resume.ckpt").is_file()


def test_submitits_notice_is_handed_back_once_the_run_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler queues the job again and ends the process."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    heard: list[bool] = []
    saved = tmp_path / "checkpoints" / "resume.ckpt"

    def queue_again(*_: Any) -> None:
        heard.append(saved.is_file())

    before = signal.signal(signal.SIGUSR2, queue_again)
    try:
        stop, losses = run(tmp_path, Send(signal.SIGUSR2, "on_before_backward"))
        assert (stop.signal, len(losses), heard) == (signal.SIGUSR2, 4, [])
        stop.hand_back()
        assert heard == [True]
        assert run(tmp_path)[0].signal is None
        signal.raise_signal(signal.SIGUSR2)
        assert heard == [True, True]
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("handler", [lambda *_: None, signal.SIG_DFL], ids=["lightnings", "none"])
def test_the_notice_of_a_cluster_counts_where_lightning_would_save_at_once_and_where_nobody_listens(
    handler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    theirs = signal.signal(signal.SIGUSR1, handler)
    try:
        stop, losses = run(tmp_path, Send(signal.SIGUSR1, "on_before_backward"))
    finally:
        signal.signal(signal.SIGUSR1, theirs)
    assert (stop.signal, len(losses)) == (signal.SIGUSR1, 4)


def test_a_signal_after_training_stops_the_measuring(tmp_path: Path) -> None:
    stop = Stop()
    module, data = toy_module(), toy_data()
    trainer = toy_trainer(tmp_path, callbacks=[stop, Send(signal.SIGINT, "on_test_batch_end", 0)])
    trainer.fit(module, data)
    with pytest.raises(SystemExit):
        trainer.test(module, data, verbose=False)
    assert stop.exit_code == 130


def test_the_private_name_that_is_replaced_is_there() -> None:
    assert callable(_TrainingEpochLoop._broadcast_sigterm_tensor)  # pyright: ignore[reportPrivateUsage]
