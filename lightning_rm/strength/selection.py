"""Treatments that leave pairs out by their strength: they change `kept`, and nothing that is trained towards.

Pure functions of strength and targets to targets, as those of `strength.treatments` are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lightning_rm.strength.targets import Targets
from lightning_rm.strength.votes import QuantileRanges, Strength, in_ranges


def select(strength: Strength, targets: Targets, *, ranges: QuantileRanges) -> Targets:
    """Train only on pairs of these quantile ranges; pairs without strength are left out too.

    Raises:
        ValueError: for a range that is empty or not within [0, 1].
    """
    return replace(targets, kept=targets.kept & in_ranges(strength.quantile, ranges))


def drop(strength: Strength, targets: Targets, *, ranges: QuantileRanges) -> Targets:
    """Train on all but the pairs of these quantile ranges.

    Raises:
        ValueError: for a range that is empty or not within [0, 1].
    """
    return replace(targets, kept=targets.kept & ~in_ranges(strength.quantile, ranges))


def decile(strength: Strength, targets: Targets, *, number: int) -> Targets:
    """Train only on one decile, from 0, the weakest, to 9 (arXiv 2401.06080, Fig 4).

    Raises:
        ValueError: for another number.
    """
    if number not in range(10):
        raise ValueError(f"number={number}: the deciles go from 0, the weakest, to 9, the strongest")
    return select(strength, targets, ranges=[(number / 10, (number + 1) / 10)])


def prefix(strength: Strength, targets: Targets, *, share: float, end: Literal["weak", "strong"] = "weak") -> Targets:
    """Train only on a share of the pairs, from the weak or from the strong end (arXiv 2401.06080, Figs 21 and 22).

    Raises:
        ValueError: if the share is not within (0, 1], or there is no such end.
    """
    if not 0 < share <= 1 or end not in ("weak", "strong"):
        raise ValueError(f"share={share}, end={end!r}: give a share above 0, 1 at most, of the weak or the strong end")
    # 1 - .7 is above 3 / 10 in floating point, which would leave out the seventh of ten pairs.
    return select(strength, targets, ranges=[(0, share) if end == "weak" else (max(1 - share - 1e-12, 0), 1)])
