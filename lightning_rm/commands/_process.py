"""Run one command from another, in a process of its own, which gives its memory back when it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_rm.commands._words import sort_words

Run = Callable[[Sequence[str]], None]
"""Runs `lightning-rm WORDS`."""


def as_a_process(words: Sequence[str]) -> None:
    """Run a command as a process of its own, which shows what it does here.

    Raises:
        ValueError: if it fails; it has printed why.
        KeyboardInterrupt: if it was stopped.
    """
    code = subprocess.run([sys.executable, "-m", "lightning_rm.commands.main", *words], check=False).returncode
    if code in (130, 143, -2, -15):
        raise KeyboardInterrupt
    if code:
        raise ValueError(f"lightning-rm {words[0]} has failed (exit code {code}); what it said stands above")


def words_of(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the words of a command line that set one of these keys, or what lies below it, and where their choices lie
    if that is a folder of the user's (`--config-dir`).
    """
    given = sort_words(words)
    folder = [] if given.folder is None else [f"--config-dir={Path(given.folder).absolute()}"]
    return [*folder, *(word for word in given.own if word.partition("=")[0].lstrip("+~").partition(".")[0] in keys)]
