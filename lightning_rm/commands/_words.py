"""A command line: its `key=value` words, and those of Hydra's own.

It knows how words are written; not which keys there are.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lightning_rm.commands._quoting import quoted, quoted_where_needed

ELSEWHERE = {
    "--config-dir": "folder",
    "-cd": "folder",
    "--config-name": "name",
    "-cn": "name",
    "--config-path": "path",
    "-cp": "path",
}
"""Words of Hydra's own by which configurations lie elsewhere -> the field of `Words` that has it."""


SHOWN = ("--cfg", "-c", "--info", "-i", "--package", "-p")
"""Words of Hydra's own by which it shows something, and runs nothing."""


FLAGS = (
    *("--cfg", "--config-dir", "--config-name", "--config-path", "--help", "--hydra-help", "--info", "--multirun"),
    *("--package", "--resolve", "--run", "--shell-completion", "--version"),
)
"""Hydra's own words, which may be cut short."""


MULTIRUN = "hydra.mode=MULTIRUN"
"""A word that asks for a sweep, as a yaml may too."""


OF_SWEEPS = ("grid", "launcher")
"""Groups whose choices nobody reads where a command is run once."""


class Words(NamedTuple):
    """A command line, sorted.

    Args:
        own: the `key=value` words.
        folder: another folder of groups (`--config-dir`).
        looks_only: whether Hydra is only asked to show something.
        name: another configuration, whose keys are its own (`--config-name`).
        path: the folder that it lies in (`--config-path`).
        flags: all words but the first kind.
    """

    own: list[str]
    folder: str | None = None
    looks_only: bool = False
    name: str | None = None
    path: str | None = None
    flags: Sequence[str] = ()


def sort_words(words: Sequence[str]) -> Words:
    """Sort the words of a command line.

    Raises:
        ValueError: for a key with dashes before it, a flag without its value, and for a run to repeat that Hydra has
            pickled: whatever is in the pickle would be run.
    """
    own: list[str] = []
    flags: list[str] = []
    others: dict[str, str] = {}
    looks_only = False
    rest = deque(words)
    while rest:
        word = rest.popleft()
        name, sign, value = word.partition("=")
        if name == "--experimental-rerun":
            raise ValueError(f"{name} reads a pickle, which may run anything; give the settings themselves")
        if not word.startswith("-"):
            own.append(word)
            continue
        flags.append(word)
        whole = next((flag for flag in FLAGS if flag.startswith(name)), None) if name.startswith("--") else name
        if whole is None:
            told = f"{name[2:]}={value or '...'}"
            raise ValueError(f"{word!r}: keys stand without dashes, and = before the value: {told}")
        if whole not in ELSEWHERE and whole not in SHOWN:
            continue
        if not sign and rest and not rest[0].startswith("-"):
            value = rest.popleft()
            flags.append(value)
        looks_only = looks_only or whole in SHOWN
        if whole in ELSEWHERE:
            if not value:
                raise ValueError(f"{whole}: say where, as {whole}=...")
            others[ELSEWHERE[whole]] = value
    return Words(own, looks_only=looks_only, flags=flags, **others)


def key_of(word: str) -> str:
    """Return the key that a word sets, without the signs that add or delete it: ++data.file=a.jsonl -> data.file."""
    return word.partition("=")[0].lstrip("+~")


def is_multirun(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for a sweep: by `-m`, `--multirun`, which may be cut short, or `hydra.mode=`."""
    modes = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("hydra.mode=")]
    return any(is_multirun_flag(word) for word in words) or modes[-1:] == [MULTIRUN.partition("=")[2]]


def is_multirun_flag(word: str) -> bool:
    """Tell whether a word is one of Hydra's flags for a sweep."""
    return word == "-m" or (word.startswith("--m") and "--multirun".startswith(word))


def check_text(words: Sequence[str], folder: str) -> None:
    """Check that this process can read and write names that are not ASCII, where it meets any.

    Args:
        words: of the command line.
        folder: where the process works.

    Raises:
        ValueError: if it was told by its language to know ASCII alone.
    """
    for name in (*words, folder):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode("utf-8", "replace")
            raise ValueError(
                f"{shown!r} has letters that this process cannot read, since its language is not UTF-8 but "
                f"{sys.getfilesystemencoding()}: set PYTHONUTF8=1, or LC_ALL=C.UTF-8, before the command"
            ) from None


def parse(arguments: Sequence[str]) -> list[Override]:
    """Return the `key=value` words of a command line.

    Raises:
        ValueError: if one cannot be read, in words that say how to write it.
    """
    parser = OverridesParser.create()
    parsed: list[Override] = []
    for word in arguments:
        try:
            parsed.append(parser.parse_override(quoted_where_needed(word)))
        except HydraException as error:
            key, sign, value = word.partition("=")
            if not sign:
                raise ValueError(
                    f"{word!r} is not of the form key=value; keys stand without dashes, as optimizer.lr=1e-5"
                ) from error
            items = value[1:-1].split(",") if value[:1] + value[-1:] == "[]" else []
            read = f"[{','.join(quoted(item.strip()) for item in items)}]" if items else quoted(value)
            raise ValueError(
                f"{word!r} cannot be read: in a value = ( ) [ ] {{ }} : and quotes are signs of their own; quote it "
                f"twice, for the shell and for Hydra: {shlex.quote(f'{key}={read}')}"
            ) from error
    return parsed


def check_single(overrides: Sequence[Override], groups: Collection[str]) -> None:
    """Check that no word is of a sweep where a command is run once.

    Args:
        overrides: of its command line.
        groups: of which one choice is made.

    Raises:
        ValueError: for the first that has, which says how a list is written, and for a choice that is of a sweep.
    """
    for override in overrides:
        key, _, value = (override.input_line or "").partition("=")
        if key in OF_SWEEPS:
            raise ValueError(f"{key}={value} is of a sweep: add -m, or the command is run once, without it")
        if override.is_sweep_override():
            is_list = "(" not in value and override.get_key_element().lstrip("+") not in groups
            told = f"; a list is {key}=[{value}]" if is_list else ""
            if os.path.exists(value):
                told += f", and the file of that name {shlex.quote(f'{key}={quoted(value)}')}"
            raise ValueError(f"{key}={value} has several values: add -m to run the command for each of them{told}")
