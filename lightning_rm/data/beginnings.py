"""What two texts, or two token sequences, begin with in common. It knows neither tokens nor words."""

from __future__ import annotations

from collections.abc import Sequence


def num_shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Say how many items two sequences of one kind begin with in common: 2 for `(1, 2, 3)` and `(1, 2, 4, 5)`."""
    low, high = 0, min(len(first), len(second))
    while low < high:  # slices are compared at the speed of C
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low
