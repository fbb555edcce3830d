"""Numbers as a user gives them: of things, such as pairs of a batch, and of any size; and things counted in words.

It knows names and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeGuard


def check_counts(least: int, **counts: object) -> None:
    """Check that numbers are whole, and not too small.

    Args:
        least: that they may be.
        **counts: by the names that they are given by.

    Raises:
        ValueError: for the first that is not taken.
    """
    _check(is_count, "a whole number", least, counts)


def check_numbers(least: float, **numbers: object) -> None:
    """Check that numbers are some, finite, and not too small: a text compares with none, and NaN with every one.

    Args:
        least: that they may be.
        **numbers: by the names that they are given by.

    Raises:
        ValueError: for the first that is not taken.
    """
    _check(is_number, "a number", least, numbers)


def check_positive(**numbers: object) -> None:
    """Check that numbers are finite, and above 0.

    Args:
        **numbers: by the names that they are given by.

    Raises:
        ValueError: for the first that is not taken.
    """
    for name, value in numbers.items():
        if not is_positive(value):
            raise ValueError(f"{name}={value!r}; it must be above 0")


def given(**values: object) -> dict[str, object]:
    """Return those that are not None, of settings for which it stands for a default."""
    return {name: value for name, value in values.items() if value is not None}


def tightest(*bounds: int | None) -> int | None:
    """Return the lowest of upper bounds, of which None is none; None where there is none at all."""
    return min((bound for bound in bounds if bound is not None), default=None)


def number_of(count: int, thing: str) -> str:
    """Return how many things there are in words: `1 voter`, `1,200 voters`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def and_others(count: int) -> str:
    """Return what a list that ends before them says of so many more: ` and 1 other`, ` and 3 others`; nothing for
    none.
    """
    return f" and {number_of(count, 'other')}" if count > 0 else ""


def is_count(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number above 0."""
    return is_number(value) and value > 0


def _check(
    is_kind: Callable[[object], TypeGuard[int | float]], kind: str, least: float, values: Mapping[str, object]
) -> None:
    for name, value in values.items():
        if not is_kind(value):
            raise ValueError(f"{name}={value!r}; give {kind}, {least:g} or more")
        if value < least:
            raise ValueError(f"{name}={value!r}; give {least:g} or more")
