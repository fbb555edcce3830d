"""Other processes at the price of a fork: a command as a user runs it, and the ranks of a run.

A fresh interpreter spends some seconds of a core on importing what this one has imported. On a machine with a GPU,
whose driver does not outlive a fork, processes are started afresh all the same.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  # pyarrow imports it at the first array that it is given, in every fork anew
import torch
from torch.multiprocessing.spawn import start_processes

from lightning_rm.commands.main import main

FORKS = hasattr(os, "fork") and not torch.accelerator.is_available()


def lightning_rm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, as a process of its own, with a cache there."""
    if not FORKS:
        return lightning_rm_afresh(folder, *arguments)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            os._exit(_become(folder, arguments, out.fileno(), err.fileno()))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(["lightning-rm", *arguments], code, out.read(), err.read())


def lightning_rm_afresh(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same by an interpreter of its own: for what starts its command again, and once to see that nothing lacks."""
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
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (TextIOWrapper(os.fdopen(fd, "wb", 0), write_through=True) for fd in (1, 2))
        os.chdir(folder)
        os.environ.update(_environment(folder))
        sys.argv = ["lightning-rm", *arguments]
        logging.getLogger().handlers.clear()
        warnings.resetwarnings()
        warnings.showwarning = _show
        main()
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
