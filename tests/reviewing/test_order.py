"""The order of pairs: worked values, and that what counts as drawn by chance is."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_rm.reviewing.order import REASONS, by_dispute, deciles, review_order


def test_ten_in_a_row_are_of_every_kind() -> None:
    """Of 200 pairs whose strength is their number: 4 of decile 0, the 2 most disputed, 1 of decile 9, 3 of others."""
    mean = np.arange(200) - 80.3
    order = review_order(mean, np.ones(200), seed=3)
    first = order.row[:10]
    by_reason = {name: first[order.reason[:10] == place].tolist() for place, name in enumerate(REASONS)}
    assert {name: len(rows) for name, rows in by_reason.items()} == {
        "weakest": 4,
        "disputed": 2,
        "strongest": 1,
        "sample": 3,
    }
    assert max(by_reason["weakest"]) < 20
    assert sorted(by_reason["disputed"]) == [80, 81]
    assert by_reason["strongest"][0] >= 180
    assert sorted(order.row.tolist()) == list(range(200))
    assert order.row.tolist() == review_order(mean, np.ones(200), seed=3).row.tolist()
    assert order.row.tolist() != review_order(mean, np.ones(200), seed=4).row.tolist()


@pytest.mark.parametrize("num_pairs", [0, 1, 7, 23])
def test_every_pair_stands_once_in_every_order(num_pairs: int) -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=num_pairs), rng.random(num_pairs)
    for ordering in ("worth", "weakest", "disputed", "strongest", "file"):
        assert sorted(review_order(mean, std, ordering).row.tolist()) == list(range(num_pairs))
    assert mean[review_order(mean, std, "weakest").row].tolist() == sorted(mean)


def test_another_order_is_an_error() -> None:
    with pytest.raises(ValueError, match="order='best': there are worth, weakest"):
        review_order(np.zeros(1), np.zeros(1), "best")  # pyright: ignore[reportArgumentType]


def test_what_is_fair_is_drawn_by_chance() -> None:
    """Over 400 seeds, each pair of a decile is among the fair ones of the first 60 equally often, disputed or not."""
    mean = np.repeat(np.arange(10.0), 12) - 4.6
    std = np.tile(np.linspace(0.1, 9, 12), 10)  # some of every decile are disputed
    times = np.zeros(120)
    shown_at_all = np.zeros(120)
    for seed in range(400):
        order = review_order(mean, std, seed=seed)
        times += order.fair_from <= 60
        shown_at_all[order.row[:60]] += 1
    by_decile = times.reshape(10, 12)
    assert by_decile[0].mean() > 380  # 24 of the weakest are drawn, and there are 12
    for decile in range(2, 9):
        share = by_decile[decile] / 400
        assert abs(share - share.mean()).max() < 0.1
    assert (shown_at_all.reshape(10, 12) / 400).std(1)[4:6].max() > 0.2  # what is shown is not drawn by chance


def test_disputed_first_and_deciles() -> None:
    mean, std = np.array([-1.0, 0.5, 0.0, 3.0, 0.2]), np.array([1.0, 2.0, 0.0, 1.0, 0.0])
    assert by_dispute(mean, std).tolist() == [2, 1, 0, 3, 4]
    assert deciles(np.array([5.0, 1, 3, 2, 4, 10, 9, 8, 7, 6])).tolist() == [4, 0, 2, 1, 3, 9, 8, 7, 6, 5]
