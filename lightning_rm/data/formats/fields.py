"""Values of a raw row, checked: each function returns a value of its type or raises `RowError` in a user's words.

Files say `null` and leave a field out for the same thing, so a field that is None counts as missing everywhere. This
file knows no format and no file.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import cast
from uuid import UUID

Raw = Mapping[str, object]
"""A row as a file gives it: field names to JSON-like values."""


class TableRow(dict[str, object]):
    """A row of a table, and the keys in it of which nobody can tell whether they are null or missing.

    Args:
        fields: the row.
        doubts: keys of tools' schemas and calls' arguments.
    """

    def __init__(self, fields: Raw, doubts: Sequence[str]) -> None:
        super().__init__(fields)
        self.doubts = tuple(doubts)


MISSING_FIELD = "missing field"
WRONG_TYPE = "wrong type"
BAD_VALUE = "bad value"
EMPTY_TEXT = "empty text"
BAD_ENCODING = "bad encoding"
BROKEN_JSON = "broken JSON"
DUPLICATE_KEY = "duplicate key"
TOO_LARGE = "too large"

FLOAT32_MAX = 3.4e38
"""Numbers beyond this become infinite in a batch."""


class RowError(Exception):
    """What is wrong with one row. It never leaves this package's readers: it becomes a `BadRow`.

    Args:
        reason: the kind, counted in reports.
        detail: what was found, and the way out where there is one.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def shown(value: object) -> str:
    """Return a value for an error message: short, and safe to print whatever it holds."""
    return reprlib.repr(value)


def found_fields(raw: Raw) -> str:
    """Return the fields of a row for an error message: `found 'prompt', 'response'`."""
    return f"found {', '.join(repr(name) for name in raw)}" if raw else "found no field at all"


def has(raw: Raw, *names: str) -> bool:
    """Tell whether a row has all these fields."""
    for name in names:  # noqa: SIM110  # a loop takes half the time, and this is asked fifty times a row
        if raw.get(name) is None:
            return False
    return True


def required(raw: Raw, name: str) -> object:
    """Return the field's value; a row without it is bad."""
    if raw.get(name) is None:
        raise RowError(MISSING_FIELD, f"field {name!r} is {'null' if name in raw else 'missing'}; {found_fields(raw)}")
    return raw[name]


def lookup(raw: Raw, path: str) -> object:
    """Return a field by its name or its dotted path, `info.post` or `summaries.0.text`; None where there is none."""
    found = _found(raw, path)
    return None if found is _NOWHERE else found


def is_there(raw: Raw, path: str) -> bool:
    """Tell whether a row has a field of this name or dotted path, be it null."""
    return _found(raw, path) is not _NOWHERE


def read_by(columns: Mapping[str, str | None], raw: Raw) -> set[str]:
    """Return the fields of a row that columns read, a part of one too: `pair` of {chosen: pair.good}."""
    return {path if path in raw else path.partition(".")[0] for path in columns.values() if path is not None}


_NOWHERE = object()


def _found(raw: Raw, path: str) -> object:
    if path in raw:
        return raw[path]
    value: object = raw
    for step in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(step, _NOWHERE)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and step.isdecimal():
            items = cast(Sequence[object], value)
            value = items[int(step)] if int(step) < len(items) else _NOWHERE
        else:
            return _NOWHERE
    return value


def text(value: object, name: str) -> str:
    """Return text that can be written down again: half of a surrogate pair (`"\ud800"` in JSON) cannot."""
    if not isinstance(value, str):
        raise RowError(WRONG_TYPE, f"{name} must be text, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(BAD_ENCODING, f"{name} holds half a surrogate pair at character {error.start}") from None
    return value


def number(value: object, name: str, low: float = -FLOAT32_MAX, high: float = FLOAT32_MAX) -> float:
    """Return a finite number between `low` and `high`; a decimal counts as one, true and false do not."""
    value = _float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        quoted = "; write it as a number, without quotes" if _is_number_text(value) else ""
        raise RowError(WRONG_TYPE, f"{name} must be a number, found {shown(value)}{quoted}")
    if not low <= value <= high:  # False for NaN too
        bounds = (
            f"between {low:g} and {high:g}" if high < FLOAT32_MAX else f"at least {low:g}" if low == 0 else "finite"
        )
        raise RowError(BAD_VALUE, f"{name} must be {bounds}, found {shown(value)}")
    return float(value)


def _float(value: object) -> object:
    """Return a decimal number as a float: a NaN among decimals cannot be compared."""
    if not isinstance(value, Decimal):
        return value
    return float("nan") if value.is_nan() else float(value)


def _is_number_text(value: object) -> bool:
    try:
        float(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def optional_number(raw: Raw, name: str, low: float = -FLOAT32_MAX, high: float = FLOAT32_MAX) -> float | None:
    """Return the field as a number, None where it is missing."""
    return number(raw[name], f"field {name!r}", low, high) if has(raw, name) else None


def items_of(value: object, name: str, what: str = "") -> Sequence[object]:
    """Return a list; `what` says of what, for errors: ` of texts`."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RowError(WRONG_TYPE, f"{name} must be a list{what}, found {shown(value)}")
    return cast(Sequence[object], value)


def check_one_each(name: str, found: int, num_responses: int) -> None:
    """Check that a field's list has one item a response."""
    if found != num_responses:
        raise RowError(BAD_VALUE, f"field {name!r} has {found} items for {num_responses} responses; it needs one each")


def numbers(value: object, name: str) -> tuple[float, ...]:
    """Return a list of finite numbers."""
    items = items_of(value, name, " of numbers")
    return tuple(number(item, f"{name}, item {place}") for place, item in enumerate(items))


def probability(raw: Raw, name: str) -> float | None:
    """Return the field as a probability: a number in [0, 1], or true and false for 1 and 0.

    None where it is missing.
    """
    value = _float(raw.get(name))
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and 1 < value <= 100:
        raise RowError(
            BAD_VALUE,
            f"field {name!r} must be between 0 and 1, the probability that chosen is preferred, found {shown(value)}; "
            f"of a column in 0..100 write the hundredth part, {value / 100:g} here",
        )
    return optional_number(raw, name, 0.0, 1.0)


def truth(raw: Raw, name: str) -> bool | None:
    """Return the field as true or false, also written 1 or 0; None where it is missing."""
    value = raw.get(name)
    return value if value is None or isinstance(value, bool) else choice(raw, name, (0, 1)) == 1


def choice(raw: Raw, name: str, options: Sequence[int]) -> int:
    """Return the field as one of a few whole numbers."""
    value = required(raw, name)
    if isinstance(value, bool) or value not in options:
        raise RowError(BAD_VALUE, f"field {name!r} must be one of {', '.join(map(str, options))}, found {shown(value)}")
    return int(cast(int, value))


def identifier(raw: Raw, name: str) -> str | None:
    """Return the field as a name: text, or a whole number, truth value or UUID written as text; None where it is
    missing.

    A whole number may be a float: tables make floats of a column of numbers in which one is missing.
    """
    value = _float(raw.get(name))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | UUID):
        return str(value)
    if value is None:
        return None
    if not isinstance(value, str):
        raise RowError(
            WRONG_TYPE, f"field {name!r} must be text or a whole number, found {shown(value)}; write it as text"
        )
    name_text = text(value, f"field {name!r}")
    if not name_text.strip():
        raise RowError(EMPTY_TEXT, f"field {name!r} is empty; leave it out instead")
    return name_text


Columns = Mapping[str, str | None]
