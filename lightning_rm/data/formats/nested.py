"""Nested values and their JSON, without duplicate keys, numbers beyond a float or none at all, or unbounded depth. This
file knows no format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, cast

from lightning_rm.data.formats.fields import BAD_VALUE, BROKEN_JSON, DUPLICATE_KEY, TOO_LARGE, WRONG_TYPE, Raw, RowError
from lightning_rm.data.formats.limits import MAX_DEPTH


def parse_json(written: str) -> object:
    """Return the value of a JSON text.

    Raises:
        RowError: for broken JSON, an object with a duplicate key, a number that no float can hold or that is none, or
            nesting too deep to parse.
    """
    try:
        return JSON_ROWS.decode(written)
    except (ValueError, RecursionError) as error:
        raise RowError(BROKEN_JSON, str(error)) from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise RowError(DUPLICATE_KEY, f"the key {twice!r} stands twice in one object, and only one can be meant")
    return found


def float_of(written: str) -> float:
    """Return a number of a JSON text.

    Raises:
        RowError: for one that no float can hold, such as 1e400: it would be infinite, and written again as `Infinity`,
            which is no JSON.
    """
    if math.isinf(value := float(written)):
        raise RowError(BAD_VALUE, f"the number {written[:40]} is beyond 1.8e308, the end of floats; write it as text")
    return value


def no_number(written: str) -> NoReturn:
    """Refuse `NaN`, `Infinity` and `-Infinity`, which Python reads, and writes, though no JSON has them.

    Raises:
        RowError: always.
    """
    raise RowError(BAD_VALUE, f"{written} is no number of JSON; write null where there is none")


JSON_ROWS = json.JSONDecoder(object_pairs_hook=_object, parse_float=float_of, parse_constant=no_number)
"""Reads JSON; raises `RowError` for an object with a duplicate key, and for a number that no float holds or is none."""


def json_like(value: object, name: str) -> object:
    """Return nested data as it is, if it can be written as JSON and is not nested beyond `MAX_DEPTH`."""
    check_depth(value, name)
    try:
        json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RowError(WRONG_TYPE, f"{name} must be JSON-like data: {error}") from None
    return value


def check_depth(value: object, name: str) -> None:
    """Raise `RowError` for nesting beyond `MAX_DEPTH`, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise RowError(TOO_LARGE, f"{name} is nested more than {MAX_DEPTH} deep")


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, str | int | float | None):  # most values are, and this check is quick
        return ()
    if isinstance(value, Mapping):
        return cast(Mapping[object, object], value).values()
    return cast(Sequence[object], value) if isinstance(value, list | tuple) else ()


def json_field(raw: Raw, name: str, what: str | None = None) -> object:
    """Return a field that holds nested data, as it is or as JSON text; None where it is missing.

    Args:
        raw: the row, or the message.
        name: of the field.
        what: what to call it in an error; None for `field NAME`.
    """
    what = what or f"field {name!r}"
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except RowError as error:
            fault = "is not JSON" if error.reason == BROKEN_JSON else "is refused"
            raise RowError(error.reason, f"{what} {fault}: {error.detail}") from None
    return json_like(value, what)
