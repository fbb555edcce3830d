"""Whether two people agree more often than by chance: Cohen's kappa. This file knows only names of answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple


class Kappa(NamedTuple):
    """Agreement of two reviewers on `num_pairs` pairs: observed, by chance, and kappa; NaN where it is undefined."""

    kappa: float
    observed: float
    by_chance: float
    num_pairs: int


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> Kappa:
    """Return Cohen's kappa, `(p_o - p_e) / (1 - p_e)` (Cohen 1960, Educational and Psychological Measurement 20, eq 1).

    Of 50 items both say yes 20 times and no 15 times, only the first says yes 5 times, only the second 10 times:
    p_o = 35/50, p_e = .5 * .6 + .5 * .4, kappa = .4.

    Args:
        first: what one reviewer says of each pair.
        second: what the other says of the same pairs.

    Returns:
        1 where they always agree, 0 for what chance gives; NaN without pairs, and where both give one and the same
        answer on all, which chance would give as well.
    """
    num_pairs = len(first)
    if not num_pairs:
        return Kappa(math.nan, math.nan, math.nan, 0)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / num_pairs
    counts, other_counts = Counter(first), Counter(second)
    by_chance = sum(counts[answer] * other_counts[answer] for answer in counts) / num_pairs**2
    kappa = math.nan if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
    return Kappa(kappa, observed, by_chance, num_pairs)
