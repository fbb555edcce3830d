"""What long commands show while they work, and what they print when Ctrl-C ends them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lightning_rm.commands._stopped import exit_after


class Bar(Progress):
    """A bar on a terminal; elsewhere, such as in a log file, one line a minute.

    Args:
        console: where it is shown.
        shown: whether anything is.
        clock: gives seconds.
    """

    def __init__(self, console: Console, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, disable=not shown or not console.is_terminal)
        self.says_lines = shown and not console.is_terminal
        self.clock = clock
        self._last = clock()
        self._shown: dict[object, TaskID] = {}

    def show(self, name: str, done: int, total: int | None, key: object = None) -> None:
        """Show how much of a task is done; the task begins where it is named for the first time.

        Args:
            name: what it is called.
            done: how many are done.
            total: of how many; None where nobody knows.
            key: tells it from others of its name; None for the name itself.
        """
        key = name if key is None else key
        if key not in self._shown:
            self._shown[key] = self.add_task(name, total=total)
        self.update(self._shown[key], completed=done, total=total)

    def update(self, task_id: TaskID, **options: Any) -> None:
        """Note what is done of a task."""
        super().update(task_id, **options)
        if self.says_lines and self.clock() - self._last >= 60:
            self._last = self.clock()
            task = next(task for task in self.tasks if task.id == task_id)
            of = "" if task.total is None else f" of {task.total:,.0f}"
            self.console.print(f"{task.description}: {task.completed:,.0f}{of}", markup=False, highlight=False)


@contextmanager
def resumable(kept: str) -> Generator[None]:
    """Say at Ctrl-C or SIGTERM that a command goes on where it was, and exit with a shell's code for it."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        print(f"interrupted: what is {kept} is kept; run the same command to go on", file=sys.stderr)
        exit_after(stopped)
