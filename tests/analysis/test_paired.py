from __future__ import annotations

import math
import random

import pytest

from lightning_rm.analysis.paired import (
    mean_difference,
    paired_difference,
    runs_needed,
    student_coverage,
    student_quantile,
)
from tests.float64 import same


@pytest.mark.parametrize(
    ("level", "dof", "quantile"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.3027),
        (0.95, 3, 3.1824),
        (0.95, 4, 2.7764),
        (0.95, 9, 2.2622),
        (0.95, 30, 2.0423),
        (0.95, 120, 1.9799),
        (0.90, 5, 2.0150),
        (0.99, 10, 3.1693),
    ],
)
def test_quantiles_are_those_of_the_printed_table(level: float, dof: int, quantile: float) -> None:
    assert student_quantile(dof, level) == pytest.approx(quantile, abs=5e-5)


@pytest.mark.parametrize("dof", [1, 2, 3, 6, 11])
def test_coverage_is_the_integral_of_the_density(dof: int) -> None:
    """Simpson's rule over the density of Student's t, from the gamma functions."""
    scale = math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2)) / math.sqrt(dof * math.pi)
    steps, end = 2000, 2.5
    width = end / steps
    values = [scale * (1 + (width * k) ** 2 / dof) ** (-(dof + 1) / 2) for k in range(steps + 1)]
    half = width / 3 * (values[0] + values[-1] + 4 * sum(values[1:-1:2]) + 2 * sum(values[2:-1:2]))
    assert student_coverage(end, dof) == pytest.approx(2 * half, abs=1e-9)


def test_a_worked_interval() -> None:
    """Differences 1, 2, 3, 4, 5 (in hundredths): mean 3, spread 1.5811, half width 2.7764 * 1.5811 / sqrt(5) = 1.9632.

    t = 3 / .7071 = 4.2426 has a two-sided probability of .0132 at four degrees of freedom.
    """
    found = mean_difference([0.01, 0.02, 0.03, 0.04, 0.05])
    assert found[:4] == pytest.approx((0.03, 0.010368, 0.049632, 0.015811), abs=1e-6)
    assert found.p == pytest.approx(0.01324, abs=1e-5)
    assert (found.num, found.verdict) == (5, "higher")
    assert mean_difference([-0.01, -0.02, -0.03, -0.04, -0.05]).verdict == "lower"


def test_an_interval_that_holds_zero_cannot_be_told_and_p_agrees() -> None:
    draw = random.Random(0)
    for _ in range(50):
        found = mean_difference([draw.gauss(0.5, 1) for _ in range(draw.randint(2, 9))])
        assert (found.verdict == "cannot be told") == (found.p > 0.05)


def test_one_pair_tells_nothing_and_equal_differences_no_more() -> None:
    """Two accuracies of 600 pairs often differ by the very same count, which is no spread of zero."""
    for equal in ([0.2], [0.25] * 3, [0.57 - 0.56, 0.58 - 0.57], [0.0] * 3):
        found = mean_difference(equal)
        assert (found.mean, found.num, found.verdict) == (same(equal[0]), len(equal), "cannot be told")
        assert all(math.isnan(value) for value in found[1:5])


def test_differences_are_over_the_blocks_that_both_have() -> None:
    values = {("world 0", 0): 0.7, ("world 0", 1): 0.8, ("world 1", 0): 0.9}
    reference = {("world 0", 1): 0.75, ("world 0", 0): 0.6, ("world 2", 0): 0.1}
    found = paired_difference(values, reference)
    assert found is not None
    assert (found.num, found.mean) == (2, same(0.075))
    assert paired_difference(values, {}) is None


@pytest.mark.parametrize(("spread", "difference"), [(0.05, 0.02), (0.02, 0.02), (0.3, 0.01), (0.0, 0.02)])
def test_the_runs_that_a_difference_needs_are_the_fewest_that_suffice(spread: float, difference: float) -> None:
    def half(num: int) -> float:
        return student_quantile(num - 1) * spread / math.sqrt(num)

    needed = runs_needed(spread, difference)
    assert needed is not None
    assert half(needed) <= difference
    assert needed == 2 or half(needed - 1) > difference


def test_a_difference_of_two_hundredths_needs_27_runs_at_a_spread_of_five() -> None:
    """t(26) = 2.0555: 2.0555 * .05 / sqrt(27) = .01978; one run fewer leaves .02020."""
    assert runs_needed(0.05) == 27
    assert runs_needed(math.nan) is None
