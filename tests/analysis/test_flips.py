"""Kappa, and what reviews tell of the rest: worked values, and intervals over made reviews."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_rm.analysis.flips import FlipPrecision, deciles_to_flip, flip_precision, wrong_share
from lightning_rm.analysis.kappa import cohen_kappa
from tests.float64 import same


def test_kappa_of_a_worked_table() -> None:
    """Both yes 20, both no 15, only the first yes 5, only the second 10: p_o = .7, p_e = .5, kappa = .4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen_kappa(first, second)
    assert found == pytest.approx((0.4, 0.7, 0.5, 50), abs=1e-12)
    assert cohen_kappa("aab", "aab").kappa == 1
    assert math.isnan(cohen_kappa("aaa", "aaa").kappa)
    assert cohen_kappa([], []).num_pairs == 0


def test_precision_of_flips_of_a_worked_decile() -> None:
    """Of decile 0: 8 wrong, 2 right, a tie. Wilson's interval of 8 of 10 is .490 to .943 (95 %)."""
    decile = [0] * 13 + [1] * 3
    wrong = [1.0] * 8 + [0.0] * 2 + [0.5] + [np.nan] * 2 + [0.0, np.nan, np.nan]
    found = flip_precision(decile, wrong, num_deciles=2)
    assert found.num_pairs.tolist() == [13, 3]
    assert (found.num_wrong[0], found.num_right[0], found.num_ties[0]) == (8, 2, 1)
    assert found.precision.tolist() == [0.8, 0.0]
    assert (found.low[0], found.high[0]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert deciles_to_flip(found) == 0
    assert deciles_to_flip(flip_precision([0] * 20, [1.0] * 18 + [0.0] * 2, 1)) == 1
    share = wrong_share(found)
    assert share.share == same(13 / 16 * 8 / 11)
    assert share.low < share.share < share.high
    assert math.isnan(wrong_share(flip_precision([0, 1], [1.0, np.nan], 2)).share)


@pytest.mark.parametrize(
    "wrong",
    [
        [1, 0.6, 0.4, 0.2, 0.1, 0.08, 0.05, 0.03, 0.02, 0.01],
        [0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.05],
        [0.3, 0.1, 0.05, 0.02, 0.01, 0, 0, 0, 0, 0],
        [0.5] * 10,
    ],
)
def test_the_interval_of_the_whole_holds_the_truth(wrong: list[float]) -> None:
    """Of 500 made reviews of 60 pairs, 48 of them drawn by chance as the order draws them, at least 85 in 100."""
    rng = np.random.default_rng(0)
    num = np.array([24, 2, 2, 2, 2, 2, 3, 2, 3, 6])
    num_held = 0
    for _ in range(500):
        found = rng.binomial(num, wrong)
        none, precision = np.zeros(10, np.int64), found / num
        share = wrong_share(FlipPrecision(np.full(10, 200), num - found, found, none, precision, precision, precision))
        num_held += share.low <= np.mean(wrong) <= share.high
    assert num_held >= 0.85 * 500
