"""A command line: its `key=value` words, and those of Hydra's own.

It knows how words are written; not which keys there are.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

ELSEWHERE = {
    "--config-dir": "folder",
    "-cd": "folder",
    "--config-name": "name",
    "-cn": "name",
    "--config-path": "path",
    "-cp": "path",
}
"""Words of Hydra's own by which configurations lie elsewhere -> the field of `Words` that has it."""


FLAGS = (
    *("--cfg", "--config-dir", "--config-name", "--config-path", "--help", "--hydra-help", "--info", "--multirun"),
    *("--package", "--resolve", "--run", "--shell-completion", "--version"),
)
"""Hydra's own words, which may be cut short."""


BEYOND_ASCII = r"[^\s,=:()\[\]{}]*[^\x00-\x7f](?:[^,=:()\[\]{}]*[^\s,=:()\[\]{}])?"
"""What is quoted in a value: from one sign of the grammar to the next, with a letter that is not ASCII."""


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
    rest = iter(words)
    for word in rest:
        name, sign, value = word.partition("=")
        if name == "--experimental-rerun":
            raise ValueError(f"{name} reads a pickle, which may run anything; give the settings themselves")
        if word.startswith("-"):
            flags.append(word)
        if name in ELSEWHERE:
            place = value if sign else next(rest, None)
            if place is None:
                raise ValueError(f"{name}: say where, as {name}=...")
            others[ELSEWHERE[name]] = place
            flags += [] if sign else [place]
        elif word in ("--cfg", "-c", "--info", "-i", "--package", "-p"):
            looks_only = True
        elif name.startswith("--") and not any(flag.startswith(name) for flag in FLAGS):
            told = f"{name[2:]}={value or '...'}"
            raise ValueError(f"{word!r}: keys stand without dashes, and = before the value: {told}")
        elif not word.startswith("-"):
            own.append(word)
    return Words(own, looks_only=looks_only, flags=flags, **others)


def quoted_where_needed(word: str) -> str:
    """Return a word with quotes round what Hydra's grammar takes for no text: letters that are not ASCII.

        data.file=[données.jsonl,b.jsonl]  ->  data.file=["données.jsonl",b.jsonl]

    A word that has quotes, or is not understood with them either, stays as it is.
    """
    key, sign, value = word.partition("=")
    if word.isascii() or not sign or any(mark in value for mark in ("'", '"', "\\")):
        return word
    if _is_read(word):
        return word
    with_quotes = f"{key}=" + re.sub(BEYOND_ASCII, r'"\g<0>"', value)
    return with_quotes if _is_read(with_quotes) else word


def _is_read(word: str) -> bool:
    """Tell whether Hydra's grammar knows a word."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


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
            quoted = "[" + ",".join(f'"{item.strip()}"' for item in items) + "]" if items else f'"{value}"'
            raise ValueError(
                f"{word!r} cannot be read: in a value = ( ) [ ] {{ }} : and quotes are signs of their own; quote it "
                f"twice, for the shell and for Hydra: '{key}={quoted}'"
            ) from error
    return parsed


def check_single(overrides: Sequence[Override], groups: Collection[str]) -> None:
    """Check that no word has several values where a command is run once.

    Args:
        overrides: of its command line.
        groups: of which one choice is made.

    Raises:
        ValueError: for the first that has; it says how a list is written.
    """
    for override in overrides:
        key, _, value = (override.input_line or "").partition("=")
        if override.is_sweep_override():
            is_list = "(" not in value and override.get_key_element().lstrip("+") not in groups
            told = f"; a list is {key}=[{value}]" if is_list else ""
            raise ValueError(f"{key}={value} has several values: add -m to run the command for each of them{told}")
