"""Signals that end a command: the exit codes, a command that it runs, and Slurm's queue."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from lightning_rm.callbacks import Stop
from lightning_rm.commands import _stopped
from lightning_rm.commands._stopped import (
    INNER,
    STARTED_BY,
    Terminated,
    exit_after,
    follow_starter,
    follow_sweep,
    listen,
    run_inner,
)
from lightning_rm.commands.train import _end  # pyright: ignore[reportPrivateUsage]

SAVES = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [{number}])
os.kill(os.getppid(), {number})
signal.sigwait([{number}])
open({file!r}, "w").write(os.environ["LIGHTNING_RM_INNER"])
sys.exit(128 + {number})
"""
"""A command that has the one above it stopped, and saves what it has done when it is told."""


@pytest.fixture
def queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A job of Slurm's, and the file with what was asked of its queue."""
    heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)}
    asked, scontrol = tmp_path / "asked", tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    listen()
    yield asked
    for number, handler in heard.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_command_that_is_run_has_ended_before_the_one_that_runs_it(number: int, queued: Path) -> None:
    saved = queued.with_name("saved")
    command = [sys.executable, "-S", "-c", SAVES.format(number=int(number), file=str(saved))]
    with pytest.raises(Terminated) as stopped:
        run_inner(command)
    assert saved.read_text() == "1"
    with pytest.raises(SystemExit) as ended:
        exit_after(stopped.value)
    assert ended.value.code == 128 + number
    assert queued.exists() == (number == signal.SIGUSR1)


def test_a_command_that_was_stopped_alone_stops_the_one_that_runs_it(queued: Path) -> None:
    for code, kind in ((143, Terminated), (138, Terminated), (130, KeyboardInterrupt)):
        with pytest.raises(kind):
            run_inner([sys.executable, "-S", "-c", f"import sys; sys.exit({code})"])
    assert run_inner([sys.executable, "-S", "-c", "import sys; sys.exit(3)"]) == 3


def test_slurms_notice_between_a_training_and_its_test_puts_the_job_back_too(queued: Path) -> None:
    """Where nobody listens for it, Lightning makes an exit of it."""
    ended = SystemExit(1)
    ended.__context__ = Terminated(signal.SIGUSR1)
    with pytest.raises(SystemExit) as told:
        _end(ended, Stop(), Mock())
    assert told.value.code == 138
    assert queued.read_text() == "requeue 17\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # by which Slurm ends what is in its queue again


def test_one_process_of_a_job_puts_it_back_into_the_queue_after_slurms_notice(
    queued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(stopped: KeyboardInterrupt) -> int:
        with pytest.raises(SystemExit) as ended:
            exit_after(stopped)
        return int(str(ended.value.code))

    notice = Terminated(signal.SIGUSR1)
    assert (end(KeyboardInterrupt()), end(Terminated())) == (130, 143)
    assert not queued.exists()
    assert end(notice) == 138
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert end(notice) == 138
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv(INNER, "1")
    assert end(notice) == 138
    assert queued.read_text() == "requeue 17\n"


def inner() -> None:
    os.environ |= {STARTED_BY: str(os.getppid()), INNER: "1"}
    follow_starter()


def rank() -> None:
    os.environ |= {STARTED_BY: str(os.getppid()), "LOCAL_RANK": "1"}
    follow_starter()


def job() -> None:
    follow_sweep()


def start(follow: Callable[[], None], writing: int) -> None:
    """Start a process that says when it follows, and waits for ever."""
    if os.fork() == 0:
        follow()
        os.write(writing, b"follows")
    signal.pause()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKS", "PATIENCE"):
        monkeypatch.setattr(_stopped, name, 1e-3)
    for name in (STARTED_BY, INNER, "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("follow", [inner, rank, job])
def test_what_a_command_has_started_ends_with_it(follow: Callable[[], None], quick: None) -> None:
    """A kill tells nobody. Both hold the pipe's writing end, which has ended when none is left."""
    reading, writing = os.pipe()
    starter = multiprocessing.get_context("fork").Process(target=start, args=(follow, writing))
    starter.start()
    os.close(writing)
    assert os.read(reading, 64) == b"follows"
    os.kill(starter.pid or 0, signal.SIGKILL)
    starter.join()
    assert os.read(reading, 64) == b""
    os.close(reading)


def test_a_command_whose_starter_has_ended_before_it_looks_ends_too(quick: None) -> None:
    if (ended := os.fork()) == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    if (late := os.fork()) == 0:
        os.environ |= {STARTED_BY: str(ended), INNER: "1"}
        follow_starter()
        signal.pause()
    assert os.waitstatus_to_exitcode(os.waitpid(late, 0)[1]) == 128 + signal.SIGTERM


@pytest.mark.parametrize("environment", [{}, {STARTED_BY: str(os.getpid()), INNER: "1"}, {INNER: "1"}])
def test_what_a_user_has_started_stays(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a command that a callback leaves behind, nor one in a shell that another command runs."""
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(_stopped, "_follow", (followed := Mock()))
    follow_starter()
    follow_sweep()
    assert environment[STARTED_BY] == str(os.getpid())
    followed.assert_not_called()
