"""What commands that take long show while they work, and what they say when Ctrl-C ends them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress(console: Console, shown: bool = True) -> Progress:
    """A bar with how many are done, how many there are and the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not shown)


@contextmanager
def resumable(kept: str) -> Generator[None]:
    """Of a command that goes on where it was: say so at Ctrl-C, and exit with a shell's code for it."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted: what is {kept} is kept; run the same command to go on", file=sys.stderr)
        raise SystemExit(130) from None
