"""What Windows and macOS lack is not leaned on. Both are played here: nothing was run on either."""

from __future__ import annotations

import ast
import errno
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightning_rm
from lightning_rm import drafts, folder_drafts, system
from lightning_rm.commands._job import LOST
from lightning_rm.commands._sweep import _where  # pyright: ignore[reportPrivateUsage]
from lightning_rm.commands.train import _end  # pyright: ignore[reportPrivateUsage]
from lightning_rm.data.tokenize import processes
from lightning_rm.drafts import clear_drafts, draft_of
from lightning_rm.folder_drafts import folder_draft

PACKAGE = Path(lightning_rm.__file__).parent
POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "syslog", "termios"}
POSIX_NAMES = {
    *("fork", "kill", "killpg", "setsid", "getuid", "geteuid", "sched_getaffinity", "mkfifo"),
    *("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM"),
}
GUARDED = {
    ("system.py", "kill"),
    ("data/tokenize/hostile.py", "resource"),  # on Linux alone
    ("data/tokenize/processes.py", "sched_getaffinity"),  # the same
    ("callbacks/stop.py", "SIGUSR1"),  # in a job of Slurm
    ("commands/_stopped.py", "SIGUSR1"),  # the same
}


def leanings(path: Path) -> Iterator[str]:
    """What of POSIX a file names."""
    text = path.read_text(encoding="utf-8")
    if not any(name in text for name in POSIX_MODULES | {f".{name}" for name in POSIX_NAMES}):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from POSIX_MODULES & {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            yield from {node.module or ""} & POSIX_MODULES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("os", "signal"):
            yield from {node.attr} & POSIX_NAMES


def test_what_systems_do_not_have_alike_stands_where_it_is_guarded() -> None:
    found = {(path.relative_to(PACKAGE).as_posix(), name) for path in PACKAGE.rglob("*.py") for name in leanings(path)}
    assert found == GUARDED


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Windows, as its Python is documented: what was flushed."""
    flushed: list[str] = []
    real_open = os.open

    def no_folder(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, flags, *rest, **options)

    def only_written(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(Path(f"/proc/self/fd/{number}").resolve().name)

    def no_links(*_: Any, **__: Any) -> None:
        raise NotImplementedError("link: follow_symlinks unavailable on this platform")

    def no_exchange(first: Path, second: Path) -> bool:
        return False

    def ends_it(process: int, number: int) -> None:
        raise AssertionError("os.kill interrupts or ends a process there")

    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)  # it opens no folders there either
    monkeypatch.setattr(folder_drafts, "_exchange", no_exchange)
    for name, function in (("open", no_folder), ("fsync", only_written), ("link", no_links), ("kill", ends_it)):
        monkeypatch.setattr(os, name, function)
    monkeypatch.delattr(signal, "SIGUSR1")
    return flushed


def test_files_and_folders_are_swapped_on_windows(tmp_path: Path, windows: list[str]) -> None:
    with draft_of(tmp_path / "a.txt") as draft:
        draft.write_text("a")
    for text in ("old", "new"):
        with folder_draft(tmp_path / "model", keep=lambda name: name == "mine") as draft:
            (draft / "weights").write_text(text)
        (tmp_path / "model" / "mine").write_text("kept")
    assert (tmp_path / "a.txt").read_text() == "a"
    assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == {
        "weights": "new",
        "mine": "kept",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "model"]
    assert [name for name in windows if not name.startswith("a.txt")] == ["weights", "weights", "mine"]


def test_drafts_of_others_go_by_their_age_on_windows(tmp_path: Path, windows: list[str]) -> None:
    left = tmp_path / f"a.txt.{drafts._host()}-1-{'0' * 12}.tmp"  # pyright: ignore[reportPrivateUsage]
    left.touch()
    clear_drafts(tmp_path)
    assert left.exists()
    os.utime(left, (0, 0))
    clear_drafts(tmp_path)
    assert not left.exists()


@pytest.mark.usefixtures("windows")
def test_runs_end_and_sweeps_tell_on_windows() -> None:
    class Stopped:
        signal = signal.SIGTERM
        exit_code = 143

        def hand_back(self) -> None:
            """Nothing."""

    stop: Any = Stopped()
    with pytest.raises(SystemExit) as ended:
        _end(SystemExit(1), stop, trainer=stop)
    assert ended.value.code == 143
    assert _where(os.uname().nodename, 1).startswith(LOST)


def test_items_are_worked_on_in_this_process_where_there_are_no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "sys", type("System", (), {"platform": "darwin"}))
    assert processes.num_cores() == os.cpu_count()
    assert list(processes.mapped(lambda item: (item, os.getpid()), range(9), 4)) == [(n, os.getpid()) for n in range(9)]
