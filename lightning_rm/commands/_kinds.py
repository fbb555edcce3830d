"""Whether values are of the kind that what reads them takes: `trainer.max_epochs=two` would fail in mid-run, or not
at all.

What a configuration has a number or a truth value for is known without loading anything (`misread_number`). Where it
has null, the argument that the value becomes says what it takes (`check_kinds`). It knows no key by name but those
that take more than one kind, and those of commands that are texts (`check_texts`).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._config import dotted, source_of
from lightning_rm.commands._targets import find_object, mappings

WORDS_TOO = ("devices", "trainer.devices")
"""Keys with a number that take a word too: auto."""

FRACTIONS_TOO = ("scheduler.warmup", "trainer.", "module.attributes.", "backbone.model.config.")
"""How keys begin that may be set to a fraction where the configuration happens to have a whole number."""

NUMBERS = {"bool", "int", "float", "Tensor", "None", "NoneType"}
"""The types of an argument that is a number or a truth value."""

TEXT, TEXTS, LIST = "one text", "one text or a list of texts", "a list of texts"
OF_TEXT = {
    **dict.fromkeys(("out", "strength", "reviews", "run", "keep", "policy", "second_label", "x", "series"), TEXT),
    **dict.fromkeys(("metric", "gold"), TEXT),
    **dict.fromkeys(("runs", "deciles", "prefixes", "recipes", "sweep", "shift", "seeds"), TEXTS),
    **dict.fromkeys(("metrics", "groups"), LIST),  # one text would be read letter by letter
}
"""Keys of commands that are texts, paths and names and globs, and what each takes."""

COUNTS = ("n", "policy_n")
"""Keys of commands that are a list of whole numbers."""


def check_texts(cfg: DictConfig) -> None:
    """Check the keys of a command that name files, fields and metrics.

    Raises:
        ValueError: if one is of another kind.
    """
    for key, kind in OF_TEXT.items():
        if key not in cfg or OmegaConf.is_missing(cfg, key) or cfg[key] is None:
            continue
        value = OmegaConf.to_container(cfg[key]) if OmegaConf.is_config(cfg[key]) else cfg[key]
        if isinstance(value, str):
            if kind == LIST:
                raise ValueError(f"{key}={value}; give a list, {key}=[{value}]")
            continue
        if kind != TEXT and isinstance(value, list) and all(isinstance(one, str) for one in value):
            continue
        digits = (
            f"; quote what is a name, '{key}=\"{value}\"'" if isinstance(value, int | float) and kind != LIST else ""
        )
        raise ValueError(f"{key}={value}; give {kind}{digits}")
    if "voters" in cfg and not OmegaConf.is_missing(cfg, "voters"):
        voters = cfg.voters
        if any(isinstance(one, int | float) for one in (voters if OmegaConf.is_list(voters) else [voters])):
            raise ValueError(f"voters={voters}; give one text or a list of them, runs or folders")
    for key in COUNTS:
        value = cfg.get(key)
        if value is None or (OmegaConf.is_list(value) and all(type(one) is int for one in value)):
            continue
        raise ValueError(f"{key}={value}; give a list of whole numbers, {key}=[1,4,16]")


def misread_number(key: str, value: object, default: object) -> str | None:
    """Return what is wrong with a value where the configuration has a number; None if nothing is.

    Args:
        key: that is set.
        value: that it is set to.
        default: what the configuration has there.
    """
    if isinstance(default, bool) or not isinstance(default, int | float) or value is None or key in WORDS_TOO:
        return None
    if isinstance(value, str) and "${" in value:
        return None
    whole = isinstance(default, int) and not key.startswith(FRACTIONS_TOO)
    return _told(key, value, {"int"} if whole else {"int", "float"})


def check_kinds(cfg: DictConfig) -> None:
    """Check every argument of whatever the configuration would build that is a number or true or false, by its type.

    Raises:
        ValueError: if a value is of another kind; it names the key that sets it.
    """
    raw = dict(dotted(OmegaConf.to_container(cfg, resolve=False)))
    told: list[str] = []
    for key, values in mappings(cfg):
        for argument, takes in _numbers_of(str(values["_target_"])) if "_target_" in values else ():
            own = source_of(f"{key}.{argument}", raw)
            if argument in values and (fault := _told(own, values[argument], takes)):
                told.append(fault)
    if told:
        raise ValueError("; ".join(dict.fromkeys(told)))


def _told(key: str, value: object, takes: set[str]) -> str | None:
    """Return what is wrong with a value where some of `NUMBERS` are taken; None if nothing is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or isinstance(value, bool):
        fits = ("bool" if isinstance(value, bool) else "None") in takes
    else:
        fits = number and ("float" in takes or ("int" in takes and isinstance(value, int)))
    if fits or isinstance(value, Mapping | list) or value == "???":
        return None
    if takes <= {"bool", "None"}:
        kind = "true or false"
    elif "float" in takes:
        kind = "a number"
    else:
        whole = isinstance(value, float) and value.is_integer()
        kind = f"a whole number{f', {int(value)}' if whole else ''}"  # pyright: ignore[reportArgumentType]  # a float
    if isinstance(value, str) and value.removeprefix("-").replace(".", "", 1).isdigit():
        read = "${oc.decode:${oc.env:NAME}}"
        return f"{key}={value!r} is a text; give {kind} without quotes, one of the environment as '{key}=\"{read}\"'"
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    return f"{key}={shown}; give {kind}{' or null' if 'None' in takes else ''}"


def _numbers_of(target: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the arguments of a callable that are numbers or truth values alone, each with the types that it takes."""
    try:
        parameters = inspect.signature(find_object(target)).parameters
    except Exception:  # building it says what is wrong with the name
        return
    for name, parameter in parameters.items():
        types = _types(parameter.annotation)
        if types and types <= NUMBERS:
            yield name, types | ({"None"} if parameter.default is None else set())


def _types(annotation: Any) -> set[str]:
    """Return the names of the types of a union, or of the one that it is."""
    if isinstance(annotation, str):
        return {part.strip() for part in annotation.split("|")}
    parts = typing.get_args(annotation) or (annotation,)
    return {"None" if part is type(None) else getattr(part, "__name__", str(part)) for part in parts}
