"""Run one command from another, in a process of its own, which gives its memory back when it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._config import conf_dir, defaults_of, dotted
from lightning_rm.commands._places import with_whole_paths
from lightning_rm.commands._stopped import run_inner
from lightning_rm.commands._words import key_of, sort_words
from lightning_rm.digests import fingerprint

Run = Callable[[Sequence[str]], None]
"""Runs `lightning-rm WORDS`."""


def as_a_process(words: Sequence[str]) -> None:
    """Run a command as a process of its own, which shows what it does here.

    Raises:
        ValueError: if it fails; it has printed why.
        KeyboardInterrupt: if it was stopped, or this process, when it has saved what it had done.
    """
    if code := run_inner([sys.executable, "-m", "lightning_rm.commands.main", *words]):
        raise ValueError(f"lightning-rm {words[0]} has failed (exit code {code}); what it said stands above")


def words_of(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return the words of a command line that set one of these keys, or what lies below it, with whole paths, and where
    their choices lie if that is a folder of the user's (`--config-dir`).

    Raises:
        ValueError: if the command has a configuration of the user's own, which another command does not read.
    """
    given = sort_words(words)
    if given.name or given.path:
        raise ValueError(
            f"{given.name or given.path} is a configuration of this command alone, and what it says would not reach "
            "the commands that are run from here; give its settings as words, or in groups of a --config-dir"
        )
    folder = [] if given.folder is None else [f"--config-dir={Path(given.folder).absolute()}"]
    own = [word for word in given.own if key_of(word).partition(".")[0] in keys]
    return [*folder, *with_whole_paths(own)]


def with_choices(verb: str, words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return words for `lightning-rm train`, with what a command chooses of these groups where they do not and a
    training by itself would choose otherwise.
    """
    here, there = (defaults_of(Path(conf_dir()) / f"{name}.yaml") for name in (verb, "train"))
    given = {key_of(word) for word in words}
    own = (key for key in keys if key in here and here[key] != there[key] and key not in given)
    return [*(f"{key}={here[key]}" for key in own), *words]


def chosen_there(cfg: DictConfig, words: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return a digest of what these keys say where a folder of the user's (`--config-dir`) takes part in them; nothing
    without one.

    The words of a command line name its yaml files, which may be edited between two calls. What words set by themselves
    is left out: they are compared as they stand.
    """
    given = sort_words(words)
    if given.folder is None:
        return {}
    own = {key_of(word) for word in given.own}
    values = {
        key: value
        for key, value in dotted(OmegaConf.to_container(cfg, resolve=False))
        if key.partition(".")[0] in keys and not isinstance(value, dict) and not _is_set(key, own)
    }
    return {"yaml of --config-dir": fingerprint(values=values)}


def _is_set(key: str, own: set[str]) -> bool:
    """Tell whether a key, or one that it lies below, is among those that words set."""
    parts = key.split(".")
    return any(".".join(parts[:depth]) in own for depth in range(2, len(parts) + 1))
