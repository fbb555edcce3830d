"""Files and folders that a command line names, by their whole paths: the same from whatever folder it is started in.

What was made by other words is of other inputs, and `data.file=a.jsonl` may be the same file as `data.file=../a.jsonl`.
It knows words and names of files; not what is in these.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._quoting import at_home, quoted
from lightning_rm.commands._words import parse

ENDINGS_OF_PLACES = ("file", "path", "dir", "folder", "model", "chat_template")
"""How keys end that name a file or a folder: `data.val_file`, `backbone.path`, `judge.model`."""

SEVERAL = ("file", "path")
"""How those end of which a mapping is several places by name, and not options."""


def write_home(cfg: DictConfig) -> None:
    """Write the home folder in place of ~/ where a text of a configuration begins with it, as in words of a command
    line.
    """
    told = OmegaConf.to_container(cfg, resolve=False)
    if (whole := _at_home(told)) != told:
        cfg.merge_with(whole)


def whole_path(named: str) -> str:
    """Return the whole path of what is there, or matches; a name of something else, as on the hub, as it is.

    Folders above are those that links lead to; the name itself stays, for its ending says how to read it.
    """
    path = os.path.expanduser(named)
    if not os.path.exists(path) and not (glob.has_magic(path) and glob.glob(path, recursive=True)):
        return named
    return os.path.normpath(Path(path).parent.resolve() / Path(path).name)


def whole_place(key: str, value: object) -> object:
    """Return a setting's value, by their whole paths where its key says that it names places: one, a list of them, or
    several by name.

        data.file={easy: a.jsonl, hard: {path: b.jsonl, subset: c}}
        ->  {easy: /home/me/a.jsonl, hard: {path: /home/me/b.jsonl, subset: c}}

    A value of another kind stays, whether there is a file of that name or not: `logger.project=runs`.
    """
    if not key.endswith(ENDINGS_OF_PLACES):
        return value
    if isinstance(value, Mapping) and not key.endswith(SEVERAL):
        return _own_places(cast(Mapping[object, object], value))
    return _whole_places(value)


def with_whole_paths(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, those that name places by their whole paths."""
    return [_with_whole_paths(word) for word in words]


def written(value: object) -> str:
    """Return a plain value as Hydra reads it."""
    if isinstance(value, Mapping):
        inner = ",".join(f"{name}:{written(one)}" for name, one in cast(Mapping[object, object], value).items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(written(one) for one in cast(list[object], value))}]"
    if isinstance(value, str):
        return quoted(value)
    return json.dumps(value)


def _at_home(value: object) -> Any:
    """Return a plain value with the home folder in its texts."""
    if isinstance(value, str):
        return at_home(value)
    if isinstance(value, list):
        return [_at_home(one) for one in cast(list[object], value)]
    if isinstance(value, Mapping):
        return {key: _at_home(one) for key, one in cast(Mapping[object, object], value).items()}
    return value


def _whole_places(value: object) -> object:
    if isinstance(value, str):
        return whole_path(value)
    if isinstance(value, list):
        return [_whole_places(one) for one in cast(list[object], value)]
    if isinstance(value, Mapping):
        return {name: _whole_set(one) for name, one in cast(Mapping[object, object], value).items()}
    return value


def _whole_set(value: object) -> object:
    """Return what one of several names stands for: places, or options of which some name places."""
    return _own_places(cast(Mapping[object, object], value)) if isinstance(value, Mapping) else _whole_places(value)


def _own_places(options: Mapping[object, object]) -> dict[object, object]:
    return {key: whole_place(str(key), one) for key, one in options.items()}


def _with_whole_paths(word: str) -> str:
    key, _, value = word.partition("=")
    if "." not in key or not value or not key.endswith(ENDINGS_OF_PLACES):
        return word
    found: Any = parse([word])[0].value()
    whole = whole_place(key, found)
    is_other = isinstance(found, str) and whole == found and not os.path.isabs(found)  # such as a name on the hub
    return word if is_other or not isinstance(found, str | list | dict) else f"{key}={written(whole)}"
