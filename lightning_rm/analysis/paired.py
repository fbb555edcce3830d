"""Differences between methods that were run on the same worlds and seeds, with Student's interval.

A method is its values by block; a block is what two runs share, such as `(world 0, seed 3)`. This file knows
neither what a block is made of nor which metric the values are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Block = TypeVar("Block", bound=Hashable)

LEVEL = 0.95
"""How often an interval holds the true mean, over repetitions of the whole experiment."""

ROUNDING = 1e-9
"""Differences that spread by no more than this part of their mean are the same number."""


class Difference(NamedTuple):
    """The mean of paired differences and its interval; all but the mean are NaN where there is no spread to tell it by:
    of a single pair, and of pairs that all differ by the same. An interval of draws alone has no `spread` and no `p`.

    `spread` is the sample standard deviation of the differences, `p` the two-sided probability of a mean as far from
    zero where the true one is zero.
    """

    mean: float
    low: float
    high: float
    spread: float
    p: float
    num: int

    @property
    def has_interval(self) -> bool:
        """Whether there is a spread to tell the difference by."""
        return not math.isnan(self.low)

    @property
    def text(self) -> str:
        """The mean and its interval, where it has one: `+0.012 [-0.019, +0.043]`."""
        return f"{self.mean:+.3f}" + (f" [{self.low:+.3f}, {self.high:+.3f}]" if self.has_interval else "")

    @property
    def verdict(self) -> str:
        """`higher` or `lower` where the interval leaves zero out, else `cannot be told`; so without an interval."""
        if self.low > 0 or self.high < 0:
            return "higher" if self.low > 0 else "lower"
        return "cannot be told"


def student_coverage(t: float, dof: int) -> float:
    """Return the probability that Student's t lies in [-t, t], by the finite sums of whole degrees of freedom.

    With x = atan(t / sqrt(dof)) (Abramowitz and Stegun, 26.7.3 and 26.7.4):

        odd:  2/pi (x + sin x (cos x + 2/3 cos^3 x + 2*4/(3*5) cos^5 x + ...)), to cos^(dof - 2)
        even: sin x (1 + 1/2 cos^2 x + 1*3/(2*4) cos^4 x + ...), to cos^(dof - 2)

    Args:
        t: not negative.
        dof: degrees of freedom, at least 1.
    """
    angle = math.atan2(t, math.sqrt(dof))
    cosine = math.cos(angle)
    is_odd = dof % 2
    term = cosine if is_odd else 1.0
    total = 0.0
    for power in range(is_odd, dof - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    inner = math.sin(angle) * total
    return 2 / math.pi * (angle + inner) if is_odd else inner


def student_quantile(dof: int, level: float = LEVEL) -> float:
    """Return the t for which [-t, t] holds `level` of Student's distribution: 12.706 for one degree of freedom, 2.776
    for four.

    Args:
        dof: degrees of freedom, at least 1.
        level: in (0, 1).
    """
    low, high = 0.0, math.pi / 2  # bounds of the angle: t itself has no upper one
    for _ in range(60):
        middle = (low + high) / 2
        if student_coverage(math.sqrt(dof) * math.tan(middle), dof) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(dof) * math.tan((low + high) / 2)


def mean_difference(differences: Sequence[float], level: float = LEVEL) -> Difference:
    """Return Student's interval of the mean of paired differences: `mean +- t(n - 1) spread / sqrt(n)`.

    Args:
        differences: one a pair, at least one; they are taken as independent and normal.
        level: of the interval.
    """
    values = np.asarray(differences, np.float64)
    num, mean = len(values), float(values.mean())
    spread = float(values.std(ddof=1)) if num > 1 else 0.0
    # Accuracies are counts: twice the very same difference happens by chance, once in twenty on 600 pairs.
    if spread <= ROUNDING * abs(mean):
        return Difference(mean, math.nan, math.nan, math.nan, math.nan, num)
    error = spread / math.sqrt(num)
    half = student_quantile(num - 1, level) * error
    t = abs(mean) / error
    return Difference(mean, mean - half, mean + half, spread, 1 - student_coverage(t, num - 1), num)


def paired_difference(
    values: Mapping[Block, float], reference: Mapping[Block, float], level: float = LEVEL
) -> Difference | None:
    """Return a method less its reference, over the blocks that both have; None where they share none.

    Args:
        values: block -> the method's metric.
        reference: block -> the same metric of the method to compare with.
        level: of the interval.
    """
    shared = [values[block] - reference[block] for block in values if block in reference]
    return mean_difference(shared, level) if shared else None


def runs_needed(spread: float, difference: float = 0.02, level: float = LEVEL) -> int | None:
    """Return the fewest paired runs whose interval is at most `difference` to each side: one that large is told from
    zero.

    Where the true difference is exactly that large, every second experiment of this many runs misses it; of twice as
    many runs, every fifth.

    Args:
        spread: standard deviation of the paired differences, as measured so far.
        difference: positive.
        level: of the interval.

    Returns:
        At least 2; None where the spread is not known (NaN).
    """
    if math.isnan(spread):
        return None

    def suffices(num: int) -> bool:
        return student_quantile(num - 1, level) * spread <= difference * math.sqrt(num)

    low, high = 1, 2
    while not suffices(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
