"""What ends a command from outside: Ctrl-C, SIGTERM, a closed terminal, and Slurm's notice that the time is up
(`--signal=USR1@120`).

A training answers them itself while it trains (`callbacks.Stop`). This file knows signals, exit codes and Slurm's
queue; not what a command does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from lightning_rm.system import HANGUP, hears_hangup, leave_terminal

INNER = "LIGHTNING_RM_INNER"
"""Set for a command that another one runs, which puts the job back into the queue when both have ended."""


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
    with subprocess.Popen(command, env={**os.environ, INNER: "1"}) as process:
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


def _is_notice(number: int) -> bool:
    return "SLURM_JOB_ID" in os.environ and number == signal.SIGUSR1


def _terminate(number: int, frame: FrameType | None) -> None:
    if number == HANGUP:
        leave_terminal()
    raise Terminated(number)
