"""Intervals, tests and credits by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from lightning_rm.evaluation.best_of_n import best_of_n, kl_of_best_of_n
from lightning_rm.evaluation.credit import Credit, best_credit, pair_credit
from lightning_rm.evaluation.statistics import binomial_p, bootstrap_means, holm, interval, mcnemar, random_means
from tests.float64 import same


def test_pairs_by_three_rules() -> None:
    margin = np.array([1.0, 0.0, -1.0])
    assert pair_credit(margin, "strict").tolist() == [1, 0, 0]
    assert pair_credit(margin, "half").tolist() == [1, 0.5, 0]
    assert pair_credit(margin, "tie").tolist() == [0, 1, 0]


def test_best_of_several_by_three_rules() -> None:
    """Three responses, two responses and a filler; ties at the top share, ties below do not."""
    rewards = np.array([[1, 1, 1], [0, 2, np.nan], [3, 1, 1], [2, 2, np.nan]])
    gold = np.array([[0, 1, 0], [0, 1, np.nan], [1, 0, 0], [1, 0, np.nan]])
    assert best_credit(rewards, gold, "strict").tolist() == [0, 1, 1, 0]
    assert best_credit(rewards, gold, "half").tolist() == same([1 / 3, 1, 1, 0.5])
    assert best_credit(rewards, gold, "tie").tolist() == [1, 0, 0, 1]


def test_best_of_n_equals_brute_force_over_subsets() -> None:
    """Gold (0, 1, 3, 2) by rising reward: 1.5, 2.1667, 2.25, 2."""
    found = best_of_n(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.0, 1.0, 3.0, 2.0]]))
    assert found[0].tolist() == pytest.approx([1.5, 2.166667, 2.25, 2.0], abs=1e-6)
    rng = np.random.default_rng(0)
    rewards, gold = rng.permutation(7) + 0.0, rng.normal(size=7)
    for n in range(1, 8):
        picks = [gold[max(subset, key=lambda place: rewards[place])] for subset in combinations(range(7), n)]
        assert best_of_n(rewards[None], gold[None])[0, n - 1] == pytest.approx(np.mean(picks), abs=1e-12)


def test_best_of_n_breaks_ties_at_random() -> None:
    found = best_of_n(np.array([[5.0, 5.0, 1.0]]), np.array([[1.0, 0.0, 0.0]]))
    assert found[0].tolist() == same([1 / 3, 0.5, 0.5])


def test_kl_of_best_of_n() -> None:
    assert kl_of_best_of_n(np.array([1, 2, 16, 64])).tolist() == pytest.approx([0, 0.1931, 1.8351, 3.1745], abs=1e-4)


def test_the_bootstrap_draws_clusters_whole() -> None:
    """Ten items of one prompt, all right, and one of another, wrong: a draw has mean 1, 10/11 or 0, never another."""
    credit = Credit(np.arange(11), np.array([1.0] * 10 + [0.0]))
    drawn = bootstrap_means({"all": credit}, np.array([0] * 10 + [1]), 400)["all"]
    assert set(np.round(drawn, 6)) == {0.0, round(10 / 11, 6), 1.0}
    # Of single items the interval is that of a binomial: .5 +- 1.96 * sqrt(.25 / 400).
    single = Credit(np.arange(400), np.tile([0.0, 1.0], 200))
    bounds = interval(bootstrap_means({"all": single}, np.arange(400), 4000)["all"])
    assert (bounds.low, bounds.high) == pytest.approx((0.451, 0.549), abs=0.006)


def test_draws_do_not_depend_on_what_else_is_measured() -> None:
    credit = Credit(np.arange(6), np.array([1.0, 0, 1, 1, 0, 0]))
    cluster = np.arange(6)
    alone = bootstrap_means({"a": credit}, cluster, 50)["a"]
    beside = bootstrap_means({"b": Credit(np.array([1]), np.array([1.0])), "a": credit}, cluster, 50)
    assert alone.tolist() == beside["a"].tolist()
    assert np.isnan(beside["b"]).any()  # draws that hold none of its items


def test_draws_that_are_all_alike_have_no_interval() -> None:
    """One prompt, one draw, or prompts that are all right: a width of zero would claim that there is no chance."""
    one = Credit(np.zeros(3, int), np.array([0.1, 0.7, 1.0]))
    cluster = np.arange(4)
    assert math.isnan(interval(bootstrap_means({"a": one}, cluster, 50)["a"]).low)
    assert math.isnan(interval(bootstrap_means({"a": Credit(cluster, np.eye(4)[0])}, cluster, 1)["a"]).high)
    assert math.isnan(interval(bootstrap_means({"a": Credit(cluster, np.ones(4))}, cluster, 50)["a"]).high)
    assert interval(np.array([0.0, 1.0])).high == 0.975


def test_random_rewards_are_equal_for_equal_conversations() -> None:
    index = np.array([[0, 1], [0, 0]])

    def columns(rewards: np.ndarray) -> dict[str, Credit]:
        return {"tie": Credit(np.arange(2), (rewards[:, 0] == rewards[:, 1]) + 0.0)}

    assert set(random_means(columns, index, 20)["tie"]) == {0.5}


def test_mcnemar_is_exact() -> None:
    """Of 10 comparisons that two models disagree on, 8 to 2: p = 2 * (1 + 10 + 45) / 1024 = .109375."""
    first = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 5)
    second = np.array([False] * 8 + [True] * 2 + [True] * 5 + [False] * 5)
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (8, 2)
    assert test.p == same(0.109375)
    assert mcnemar(first, first).p == binomial_p(5, 10) == 1.0
    assert binomial_p(0, 2000) == 0.0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == same([0.03, 0.06, 0.06])
