"""`lightning-rm VERB --help`: the keys of a command, in groups, with their values and comments. It reads yaml."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lightning_rm.commands._config import conf_dir, dotted
from lightning_rm.commands._keys import check_keys, without_choices
from lightning_rm.commands._words import parse

LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?P<rest>.*)$")
KEY_WIDTH = 40
"""Columns of a key and its value; longer ones push their comment aside."""
WIDTH = 118
LONG = 80
"""The most lines that a command's keys may take: of a command that has more, only some groups are opened."""
OPENED = ("data", "optimizer")
"""The groups that are opened then: what is nearly always set."""


class Help(NamedTuple):
    """What a command's configuration says of itself.

    Args:
        about: lines.
        groups: group -> what it is set to, in the order of the defaults.
        keys: key -> value, of those that a user sets.
        inner: keys that take the values of others, and those that only a source or a logger reads.
        comments: key -> what is said of it.
    """

    about: list[str]
    groups: dict[str, str | None]
    keys: dict[str, object]
    inner: list[str]
    comments: dict[str, str]


def read_help(verb: str, arguments: Sequence[str] = (), folder: str | None = None) -> Help:
    """Read a command's keys and comments, with the groups that its arguments choose.

    Args:
        verb: the command.
        arguments: `key=value` words.
        folder: another folder to look for groups in.
    """
    root, *others = roots = _roots(folder)
    search = [f"hydra.searchpath=[{','.join(f'file://{other}' for other in others)}]"] if others else []
    with initialize_config_dir(str(root), version_base="1.3"):
        cfg = compose(verb, overrides=[*search, *arguments], return_hydra_config=True)
    chosen: dict[str, str | None] = dict(reversed(cfg.hydra.runtime.choices.items()))
    groups = {name.partition("@")[0]: choice for name, choice in chosen.items() if not name.startswith("hydra/")}
    del cfg.hydra
    comments = dict(_comments(root / f"{verb}.yaml"))
    for group, choice in groups.items():
        for name in (choice or "").strip("[]").split(","):
            comments = _comments_of_choice(roots, group, name.strip()) | comments
    keys: dict[str, object] = {}
    inner: list[str] = []
    for key, value in dotted(OmegaConf.to_container(cfg, resolve=False)):
        named = [part.startswith("_") for part in key.split(".")]
        if any(named) or (isinstance(value, dict) and value):
            continue
        follows = isinstance(value, str) and value.startswith("${") and key.count(".") > 1
        if follows or key.startswith(("data.module.", "logger.loggers.")):
            inner.append(key)
        else:
            keys[key] = value
            if (above := comments.get(key.rpartition(".")[0])) is not None:
                comments.setdefault(key, above)
    return Help(_about(root / f"{verb}.yaml"), groups, keys, inner, comments)


def help_text(verb: str, arguments: Sequence[str] = (), folder: str | None = None) -> str:
    """Return the keys of a command with the groups that its arguments choose, and what may be chosen.

    Args:
        verb: the command.
        arguments: `key=value` words; `all`, or names of groups whose keys are to be shown.
        folder: another folder to look for groups in.

    Raises:
        ValueError: for another word, and as `check_keys`.
    """
    named = [word for word in arguments if "=" not in word]
    choices = without_choices(verb, [word for word in arguments if "=" in word])
    check_keys(verb, choices, folder)
    told = read_help(verb, [one.input_line or "" for one in parse(choices) if not one.is_sweep_override()], folder)
    if unknown := [word for word in named if word != "all" and word not in told.groups]:
        raise ValueError(f"--help {unknown[0]}: there is no such group; say all, or {', '.join(told.groups)}")
    lines = [*told.about]
    if told.groups and (not named or "all" in named):
        lines += ["", "CHOICES, as GROUP=NAME"]
        for group, choice in told.groups.items():
            names = [name for root in _roots(folder) for name in choices_of(root / group)]
            lines += _row(f"{group}={_shown(choice)}", " | ".join(names))
    sections = {group: _keys_of(told, group) for group in told.groups}
    own = [] if named and "all" not in named else _rows(told, _own_keys(told))
    opened = {word.partition("=")[0] for word in choices} | {*OPENED}
    if named and "all" not in named:
        sections = {group: sections[group] for group in named}
        opened = {*named}
    elif named or len(own) + sum(map(len, sections.values())) <= LONG:
        opened = {*told.groups}
    lines += ["", "KEYS, as KEY=VALUE", *own]
    for group, keys in sections.items():
        if keys and group in opened:
            lines += [f" of {group}={_shown(told.groups[group])}", *_rows(told, keys)]
    if closed := {group: keys for group, keys in sections.items() if keys and group not in opened}:
        lines += [" of the other groups"]
        for group, keys in closed.items():
            lines += _row(f"{group}.", ", ".join(key.removeprefix(f"{group}.") for key in keys))
    if told.inner and "all" in named:
        lines += ["", "INNER KEYS, which take the values of those above or are seldom set"]
        lines += textwrap.wrap(", ".join(told.inner), WIDTH, initial_indent="  ", subsequent_indent="  ")
    lines += [
        "",
        "A value with = ( ) [ ] { } , or : is quoted twice: 'data.file=\"a(1).jsonl\"'. A sweep: -m seed=0,1,2.",
    ]
    if told.groups:
        group = next(iter(closed or told.groups))
        lines += [
            f"`{verb} GROUP=NAME --help` shows the keys of another choice, `--help {group}` of a group, "
            "`--help all` every key.",
        ]
    return "\n".join(lines)


def _own_keys(told: Help) -> list[str]:
    """Return the keys that are of no group, and groups that are a value."""
    return [key for key in told.keys if key.partition(".")[0] not in told.groups or key in told.groups]


def _keys_of(told: Help, group: str) -> list[str]:
    return [key for key in told.keys if key.startswith(f"{group}.")]


def _rows(told: Help, keys: Sequence[str]) -> list[str]:
    return [line for key in keys for line in _row(f"{key}={_shown(told.keys[key])}", told.comments.get(key, ""))]


def _row(left: str, right: str) -> list[str]:
    """Return a key and its comment, which goes on below itself."""
    first, *rest = textwrap.wrap(right, WIDTH - KEY_WIDTH - 4) or [""]
    if len(left) > KEY_WIDTH:
        return [f"  {left}", *(f"{'':{KEY_WIDTH + 4}}{line}" for line in (first, *rest) if line)]
    return [f"  {left:<{KEY_WIDTH}}  {first}".rstrip(), *(f"{'':{KEY_WIDTH + 4}}{line}" for line in rest)]


def _shown(value: object) -> str:
    """Return a value as it is written on a command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def choices_of(folder: Path) -> list[str]:
    """Return the choices of a group; a file that is a part of others says so in its first line."""
    found = [(path.stem, path.read_text(encoding="utf-8").partition("\n")[0]) for path in sorted(folder.glob("*.yaml"))]
    return [name for name, first in found if name != "base" and "a part of other choices" not in first]


def _roots(folder: str | None) -> list[Path]:
    """Return where groups lie: in this package, and in the folder that a command line names."""
    return [Path(conf_dir()), *([Path(folder).absolute()] if folder else [])]


def _comments_of_choice(roots: Sequence[Path], group: str, name: str) -> dict[str, str]:
    """Return dotted key -> comment of a group's choice, and of the parts that it is made of."""
    path = next((path for root in roots if (path := root / group / f"{name}.yaml").is_file()), None)
    if path is None:
        return {}
    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    if defaults := re.search(r"^defaults: \[(.*)\]", text, re.MULTILINE):
        for part in defaults[1].split(","):
            found |= _comments_of_choice(roots, group, part.strip())
    place = "" if text.startswith("# @package _global_") else f"{group}."
    return found | {f"{place}{key}": comment for key, comment in _comments(path)}


def _comments(path: Path) -> Iterator[tuple[str, str]]:
    """Yield dotted key -> the comment behind it, of a yaml file that is indented by two spaces."""
    stack: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if (found := LINE.match(line)) is None:
            continue
        stack = [*stack[: len(found["indent"]) // 2], found["key"]]
        _, sign, comment = found["rest"].partition(" # ")
        if sign:
            yield ".".join(stack), comment.strip()


def _about(path: Path) -> list[str]:
    """Return what a file says of itself before its first key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").removeprefix(" ") for line in lines[:end]]
