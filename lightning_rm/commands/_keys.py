"""What a user may set, and what to say of an unknown key: before anything heavy is imported, and before Hydra.

Hydra takes `+lr=1e-3` for a key that somebody will read, and proposes it for every key that it does not know. Here a
key is known if the configuration has it with the groups that are chosen, if it is an argument of the callable that its
place in the configuration names, or if it is an entry of a mapping that a user fills, such as `data.columns`.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning_rm.commands._choices import Choice, compose_choices, values_of
from lightning_rm.commands._config import conf_dir, defaults_of, dotted, source_of
from lightning_rm.commands._kinds import misread_number
from lightning_rm.commands._nearest import unknown_key
from lightning_rm.commands._targets import find_object, is_allowed, is_known
from lightning_rm.commands._words import parse

OPEN = (
    *("backbone.model.config", "features", "policy_optimizer.args"),
    *("data.columns", "data.where", "module.attributes"),
)
"""Mappings with entries in the configuration, or in an experiment, that take others too, which are checked where they
are read."""

WHOLE = ("module.attributes",)
"""Mappings that are given whole: an experiment's is replaced, where Hydra would put the two together."""

ADDED = ("data.columns", "data.where")
"""Mappings whose entries are added to those of an experiment or a data set, where Hydra would want a +."""

TEXTS_TOO = ("trainer.deterministic", "logger.loggers.wandb.log_model")
"""Keys whose value is true, false, or one of some words."""

NULL_TOO = ("data.", "responses.", "reference")
"""How keys begin that have to be given, and may be null: a set may have no file, and nobody may know the reference."""

MAPPINGS = ("chat_template_kwargs",)
"""Keys that are null or a mapping."""


def check_keys(verb: str, arguments: Sequence[str], folder: str | None = None) -> Choice:
    """Check the keys of a command line, and return the configuration that it chooses.

    Args:
        verb: the command.
        arguments: its `key=value` words.
        folder: another folder to look for groups in.

    Raises:
        ValueError: if a word cannot be read, a group has no such choice, a key is unknown (it names the nearest) or is
            of what may not be looked at, or a value would be misread: NaN, a text for a number or for true or false,
            null for what has to be given, and anything but a mapping where one is needed.
    """
    overrides = parse(arguments)
    choice = compose_choices(verb, overrides, folder)
    inside: dict[str, list[str]] = {}  # the keys of the mapping that a key is set to
    for override in overrides:
        key, given = override.key_or_group, cast(Any, override.value() if not override.is_sweep_override() else None)
        inside[key] = [inner for inner, _ in dotted(given, f"{key}.")]
    named = [*inside, *itertools.chain.from_iterable(inside.values())]
    targets = {key.removesuffix("._target_") for key in named if key.endswith("._target_")}
    told: list[str] = []
    for override in overrides:
        key = override.key_or_group
        if override.is_delete() or key in choice.groups or key == "hydra" or key.startswith(("hydra.", "hydra/")):
            continue
        keys = [key, *inside[key]] if key in choice.values else [key]
        told += [unknown_key(name, choice) for name in keys if not _is_known(name, choice, targets)]
        if not told and key not in choice.values and not (override.is_add() or override.is_force_add()):
            told.append(f"{key} has no value that could be changed; +{override.input_line} adds one")
        for each in values_of(override):
            values = ((key, each), *dotted(each, f"{key}."))
            for name, value in values:
                first = choice.values.get(source_of(name, choice.values))
                fault = _misread(name, value, choice.values.get(name)) or misread_number(name, value, first)
                told += [fault] if fault else []
    if told:
        raise ValueError("; ".join(told))
    return choice


def with_mappings(words: Sequence[str]) -> list[str]:
    """Return the `key=value` words as Hydra has to be told them for the mappings of `WHOLE` and `ADDED` to be so.

    module.attributes={a: 1} -> module.attributes=null module.attributes={a: 1}, data.where={a: 1} -> +data.where={a: 1}
    """
    told: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        is_mapping = value.startswith("{")
        told += [f"{key}=null"] if is_mapping and key in WHOLE else []
        told.append(f"+{word}" if is_mapping and key in ADDED else word)
    return told


def without_choices(verb: str, words: Sequence[str]) -> list[str]:
    """Return the `key=value` words as Hydra has to be told them that groups which may have no choice are to have none.

    peft=null -> ~peft, treatment=null -> treatment=[]; of a group that is given twice the last word holds
    """
    optional = {key: choice for key, choice in defaults_of(Path(conf_dir()) / f"{verb}.yaml").items() if not choice}
    last = {word.partition("=")[0]: word for word in words}
    told: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if value != "null" or key not in optional:
            told.append(word)
        elif last[key] == word:
            told.append(f"~{key}" if optional[key] is None else f"{key}=[]")
    return told


def _is_known(key: str, choice: Choice, targets: set[str]) -> bool:
    known = choice.values
    if key in known or (key in targets and "." in key):
        return True
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        above, name = ".".join(parts[:depth]), parts[depth]
        if above in targets or above in OPEN or f"{above}._target_" == key:
            return True
        if f"{above}._target_" in known:
            return _takes(str(known[f"{above}._target_"]), name)
        if above in known:  # a mapping that a user fills is empty, or not there yet; a group is filled by a choice
            return above not in choice.groups and known[above] in (None, {}, "???")
    return parts[-1] == "_target_" and len(parts) > 1 and ".".join(parts[:-1]) in known


def _takes(target: str, name: str) -> bool:
    """Tell whether a callable has an argument of this name.

    Raises:
        ValueError: if the callable may not be looked at, or cannot be found.
    """
    if name.startswith("_") and name.endswith("_"):  # Hydra's own: _partial_, _convert_
        return True
    if not (is_known(target) or is_allowed()):  # nothing is imported that would not be built
        raise ValueError(
            f"_target_={target!r} is outside this package and its libraries, so that nobody knows whether it takes "
            f"{name}=; add allow_targets=true to the command line if you trust it"
        )
    try:
        parameters = inspect.signature(find_object(target)).parameters
    except ImportError as error:
        raise ValueError(f"_target_={target!r} cannot be imported: {' '.join(str(error).split())}") from error
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _misread(key: str, value: object, default: object) -> str | None:
    """Return what is wrong with a value that would pass for another: `no` is a text for Hydra, and so is true."""
    if isinstance(value, float) and math.isnan(value):
        return f"{key}=nan is not a number; give one"
    if value is None and default == "???" and not key.startswith(NULL_TOO):
        return f"{key}=null: it has to be given"
    is_mapping = isinstance(default, dict) or key in MAPPINGS
    if is_mapping and not (value is None or isinstance(value, dict) or "${" in str(value)):
        return f"{key}={value}; give a mapping: {key}={{NAME: VALUE}}"
    if not (isinstance(default, bool) and isinstance(value, str)) or key in TEXTS_TOO or "${" in value:
        return None
    return f"{key}={value}; give true or false"
