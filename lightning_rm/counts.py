"""Numbers of things, such as pairs of a batch, as a user gives them. It knows names and numbers."""

from __future__ import annotations


def check_counts(least: int, **counts: object) -> None:
    """Check that numbers are whole, and not too small.

    Args:
        least: that they may be.
        **counts: by the names that they are given by; None, which stands for a default, is left alone.

    Raises:
        ValueError: for the first that is not taken.
    """
    for name, count in counts.items():
        if count is not None and not (isinstance(count, int) and count >= least):
            raise ValueError(f"{name}={count!r}; it must be a whole number, {least} or more")
