"""Intervals against tables of the normal distribution and of shares."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_rm.metrics.intervals import normal_reach, wilson


def test_a_normal_distribution_lies_within_its_reach() -> None:
    assert normal_reach() == pytest.approx(1.959963984540054, abs=1e-14)
    assert normal_reach(0.6826894921370859) == pytest.approx(1, abs=1e-14)


def test_the_interval_of_a_share_holds_it_and_is_whole_of_nothing() -> None:
    num = np.arange(1, 200)
    for share in (0, 1):
        low, high = wilson(share * num, num)
        assert ((low >= 0) & (low <= share) & (share <= high) & (high <= 1)).all()
    low, high = wilson([0, 0], [0, 4])
    assert low.tolist() == [0, 0]
    assert (high[0], high[1]) == pytest.approx((1, 0.4899), abs=1e-4)
