"""Other processes at the price of a fork: a command as a user runs it, and the ranks of a run.

A fresh interpreter spends some seconds of a core on importing what this one has imported. On a machine with a GPU,
whose driver does not outlive a fork, processes are started afresh all the same.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas  # noqa: F401  # pyarrow imports it at the first array that it is given, in every fork anew
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from lightning.fabric.strategies.launchers import subprocess_script
from torch.multiprocessing.spawn import start_processes

from lightning_rm.commands import _entry
from lightning_rm.commands.main import main
from lightning_rm.models.reward_model import RewardModel
from tests.toy import toy_model

FORKS = hasattr(os, "fork") and not torch.accelerator.is_available()


class Fork:
    """A fork of this process that calls a function and ends, waited for as a `subprocess.Popen` is."""

    def __init__(self, function: Callable[[], None], environment: Mapping[str, str], cwd: str | None = None) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            faulthandler.disable()  # pytest's would tell of a death that was meant
            os.environ.update(environment)
            os.chdir(cwd or ".")
            os._exit(_code_of(function))

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@cache
def warm_up() -> None:
    """Build, export and load a model, the first of which costs half a second: here, and not in every fork."""
    with tempfile.TemporaryDirectory() as folder:
        toy_model().save_pretrained(folder)
        RewardModel.from_pretrained(folder, pad_id=0)


def lightning_rm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, as a process of its own, with a cache there; ranks that it starts are forks too."""
    if not FORKS:
        return lightning_rm_afresh(folder, *arguments)
    warm_up()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os._exit(_become(folder, arguments, out.fileno(), err.fileno()))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(["lightning-rm", *arguments], code, out.read(), err.read())


def lightning_rm_afresh(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same by an interpreter of its own, to see that nothing lacks."""
    command = [sys.executable, "-m", "lightning_rm.commands.main", *arguments]
    environment = {**os.environ, **_environment(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def run_ranks(function: Callable[..., None], world_size: int, *args: Any) -> None:
    """Call `function(rank, *args, port)` in a process for each rank, and raise where one fails.

    Args:
        function: of a module, so that a process that is started afresh finds it.
        world_size: how many ranks.
        *args: between the rank and a free port for their rendezvous.
    """
    warm_up()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(function, (*args, port), nprocs=world_size, start_method="fork" if FORKS else "spawn")


def torchrun_environment(rank: int, world_size: int, port: int) -> None:
    """What torchrun tells a rank, from which Lightning takes that its processes are started already."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), GROUP_RANK="0")
    os.environ.update(LOCAL_WORLD_SIZE=str(world_size), TORCHELASTIC_RUN_ID="test")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def _environment(folder: Path) -> dict[str, str]:
    return {"LIGHTNING_RM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def _become(folder: Path, arguments: tuple[str, ...], out: int, err: int) -> int:
    """What a fork of the tests must forget of them to be the command; its exit code."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = (TextIOWrapper(os.fdopen(fd, "wb", 0), write_through=True) for fd in (1, 2))
    os.chdir(folder)
    os.environ.update(_environment(folder))
    sys.argv = ["lightning-rm", *arguments]
    logging.getLogger().handlers.clear()
    warnings.resetwarnings()
    warnings.showwarning = _show
    pytest.MonkeyPatch().setattr(subprocess_script, "subprocess", SimpleNamespace(Popen=_rank))
    return _code_of(main)


def _rank(command: Sequence[str], env: Mapping[str, str], cwd: str | None) -> Fork:
    """Be `subprocess.Popen` where Lightning starts the command of this process again, for another rank."""
    assert command[:2] == [sys.executable, "-m"]

    def again() -> None:
        GlobalHydra.instance().clear()
        pytest.MonkeyPatch().setattr(_entry, "_arguments", None)
        sys.argv = ["lightning-rm", *command[3:]]
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)

    return Fork(again, env, cwd)


def _code_of(function: Callable[[], None]) -> int:
    """The exit code of a process that calls a function."""
    try:
        function()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _show(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
