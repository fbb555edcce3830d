"""What ends a command from outside: Ctrl-C, SIGTERM, a closed terminal, Slurm's notice that the time is up
(`--signal=USR1@120`), and the end of the command that started it.

A training answers them itself while it trains (`callbacks.Stop`). This file knows signals, exit codes and Slurm's
queue; not what a command does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import NoReturn

from lightning_rm.system import HANGUP, hears_hangup, is_running, leave_terminal

INNER = "LIGHTNING_RM_INNER"
"""Set for a command that another one runs, which puts the job back into the queue when both have ended."""

STARTED_BY = "LIGHTNING_RM_STARTED_BY"
"""Set to its own number by each command, for those that it starts."""

LOOKS = 1.0
"""Seconds between two looks whether the command that started this one is there."""

PATIENCE = 30.0
"""Seconds that a rank has to end in once rank 0 has ended, which it may have done as it should."""


class Terminated(KeyboardInterrupt):
    """A signal that ends a command as Ctrl-C does, but for the exit code.

    Args:
        number: SIGTERM, that of a closed terminal, or under Slurm SIGUSR1.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def listen() -> None:
    """Have SIGTERM, a closed terminal, and under Slurm SIGUSR1, raise `Terminated` in the main thread."""
    signal.signal(signal.SIGTERM, _terminate)
    if HANGUP is not None and hears_hangup():
        signal.signal(HANGUP, _terminate)
    if "SLURM_JOB_ID" in os.environ:
        signal.signal(signal.SIGUSR1, _terminate)


@contextmanager
def stoppable() -> Generator[None]:
    """Have a signal that nobody below answers, as in a sweep that waits for jobs in other processes, end the command.

    Raises:
        SystemExit: as `exit_after`.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        print("stopped", file=sys.stderr)
        exit_after(stopped)


def exit_after(stopped: KeyboardInterrupt) -> NoReturn:
    """End with the code that a shell expects; after Slurm's notice rank 0 puts the job back into the queue.

    Raises:
        SystemExit: with 128 plus the signal's number.
    """
    number = stopped.number if isinstance(stopped, Terminated) else signal.SIGINT
    if _is_notice(number) and os.environ.get("SLURM_PROCID", "0") == "0":
        requeue()
    raise SystemExit(128 + number) from None


def requeue() -> None:
    """Put this process's job back into Slurm's queue, unless another command runs this one.

    Slurm then sends SIGTERM, which must not disturb a process that is ending.
    """
    if INNER not in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)


def run_inner(command: list[str]) -> int:
    """Run a command that saves what it has done when it is stopped; its exit code.

    Raises:
        KeyboardInterrupt: if this process or the other one was stopped, when the other has ended. Another Ctrl-C kills
            it.
    """
    with subprocess.Popen(command, env={**os.environ, INNER: "1", STARTED_BY: str(os.getpid())}) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt as stopped:
            if isinstance(stopped, Terminated):  # Ctrl-C has reached both
                process.send_signal(stopped.number)
            try:
                process.wait()
            except KeyboardInterrupt:
                process.kill()
            raise
    number = -code if code < 0 else code - 128
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number in (signal.SIGTERM, HANGUP) or _is_notice(number):
        raise Terminated(number)
    return code


def follow_starter() -> None:
    """Have this process end with the command that started it: a kill tells nobody, and what was begun anew meanwhile
    would write to the same folder as this one.

    That is a command that runs this one, and rank 0 of the ranks that Lightning starts. Nothing is saved then, as if
    this process had been killed too.
    """
    starter = int(os.environ.get(STARTED_BY, 0))
    os.environ[STARTED_BY] = str(os.getpid())
    is_rank = "LOCAL_RANK" in os.environ
    if not is_rank and INNER not in os.environ:
        return
    if starter == os.getppid() or (starter and is_running(starter) is False):
        _follow(starter, PATIENCE if is_rank else 0)


def follow_sweep() -> None:
    """Have a job of a sweep end with the sweep, where that has started a process for it."""
    if multiprocessing.parent_process() is not None:
        _follow(os.getppid(), 0)


@cache
def _follow(process: int, patience: float) -> None:
    threading.Thread(target=_end_with, args=(process, patience), daemon=True).start()


def _end_with(process: int, patience: float) -> None:
    """End this process, whatever its other threads wait for, some seconds after the one that started it."""
    while os.getppid() == process:
        time.sleep(LOOKS)
    time.sleep(patience)
    os._exit(128 + signal.SIGTERM)


def _is_notice(number: int) -> bool:
    return "SLURM_JOB_ID" in os.environ and number == signal.SIGUSR1


def _terminate(number: int, frame: FrameType | None) -> None:
    if number == HANGUP:
        leave_terminal()
    raise Terminated(number)
