"""JSON and YAML that somebody else may have written: read, or refused in a sentence that names the file.

A thousand brackets exhaust Python's stack, and a hundred bytes of YAML with aliases unpack to gigabytes. What a row of
data may be is said in `data.formats`; this file knows no rows.
`finite` is for what we write ourselves.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml

MAX_DEPTH = 64
"""How deep a YAML file may nest; a run's own nests to six."""

MAX_UNPACKED = 100_000
"""How many values a YAML file may have that somebody writes by hand, with its aliases written out."""


def json_of(text: str | bytes, name: object) -> Any:
    """Return the value of a JSON text.

    Args:
        text: with it.
        name: what errors call it: its file.

    Raises:
        ValueError: if it is not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{name} is nested too deep to be read as JSON") from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error


def object_of(text: str | bytes, name: object) -> dict[str, Any]:
    """Return a JSON object; `json_of` says how.

    Raises:
        ValueError: if it is none.
    """
    return _object(json_of(text, name), name)


def object_in(told: Mapping[str, Any], key: str, name: object) -> dict[str, Any]:
    """Return an object that stands in another one.

    Raises:
        ValueError: if it does not.
    """
    return _object(told.get(key), f"{key!r} of {name}")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds; `object_of` says how.

    Raises:
        OSError: if the file cannot be read.
    """
    return object_of(path.read_bytes(), path)


def _object(told: object, name: object) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ValueError(f"{name} is not a JSON object but {'nothing' if told is None else type(told).__name__}")
    return cast("dict[str, Any]", told)


def finite(value: object) -> object:
    """Return a value as strict JSON can write it: NaN and infinity become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in cast("list[object]", value)]
    return value


def check_yaml(path: Path) -> None:
    """Check a YAML file that a program wrote, before it is built: no program of ours writes aliases.

    Raises:
        ValueError: if it is not YAML, nested beyond `MAX_DEPTH`, or has an alias.
    """
    depth = 0
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"{path} is nested more than {MAX_DEPTH} deep")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{path} repeats itself by an alias (*{event.anchor}), which no run writes")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def check_aliases(path: Path) -> None:
    """Check that a YAML file which somebody writes by hand stays small once its aliases are written out.

    A list of ten that is named ten times, and that list ten times, is a thousand values: each line makes it ten times
    as many. Files that are no YAML pass: whoever reads them says so.

    Raises:
        ValueError: if it is not.
    """
    named: dict[str, int] = {}
    sizes, anchors = [0], [""]  # of the collections that are open, and what they are called
    with suppress(yaml.YAMLError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        if "*" not in text and len(text) < MAX_UNPACKED:
            return  # nothing is repeated, and a value takes a character: most files are not parsed
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                sizes.append(0)
                anchors.append(event.anchor or "")
                continue
            size = named.get(str(event.anchor), 0) if isinstance(event, yaml.AliasEvent) else 0
            if isinstance(event, yaml.ScalarEvent):
                size, named[event.anchor or ""] = 1, 1
            elif isinstance(event, yaml.CollectionEndEvent):
                size = named[anchors.pop()] = sizes.pop() + 1
            sizes[-1] += size
            if sizes[-1] > MAX_UNPACKED:
                raise ValueError(f"{path} unpacks to more than {MAX_UNPACKED:,} values, by its aliases or as it stands")


def read_yaml(path: Path) -> Any:
    """Return what a YAML file that a program wrote says; `check_yaml` says what is refused."""
    check_yaml(path)
    return yaml.safe_load(path.read_text(encoding="utf-8"))
