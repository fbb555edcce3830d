"""Numbers as a user gives them: of things, such as pairs of a batch, and of any size. It knows names and numbers."""

from __future__ import annotations

import math
from typing import TypeGuard


def check_counts(least: int, **counts: object) -> None:
    """Check that numbers are whole, and not too small.

    Args:
        least: that they may be.
        **counts: by the names that they are given by; None, which stands for a default, is left alone.

    Raises:
        ValueError: for the first that is not taken.
    """
    for name, count in counts.items():
        if count is not None and not (isinstance(count, int) and not isinstance(count, bool) and count >= least):
            raise ValueError(f"{name}={count!r}; it must be a whole number, {least} or more")


def check_numbers(least: float, **numbers: object) -> None:
    """Check that numbers are some, finite, and not too small: a text compares with none, and NaN with every one.

    Args:
        least: that they may be.
        **numbers: by the names that they are given by; None, which stands for a default, is left alone.

    Raises:
        ValueError: for the first that is not taken.
    """
    for name, number in numbers.items():
        if number is not None and not (is_number(number) and number >= least):
            kind = "" if is_number(number) else "a number, "
            raise ValueError(f"{name}={number!r}; give {kind}{least:g} or more")


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
