"""The common beginning of two texts or of two token sequences. This file knows neither tokens nor words."""

from __future__ import annotations

from collections.abc import Sequence


def num_shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Count the items at the start that two sequences of one kind share: 2 for `(1, 2, 3)` and `(1, 2, 4, 5)`."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices are compared at the speed of C
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low
