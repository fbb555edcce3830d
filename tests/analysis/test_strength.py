from __future__ import annotations

import math
import statistics
from itertools import permutations
from math import inf, nan
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import ArrayLike

from lightning_rm.analysis.detection import auroc_interval, detection, detection_scores, flagged
from lightning_rm.analysis.strength import Groups, agreement, correlation, grouped, u_shape
from tests import reference


def made(num_pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and wrong labels that are likelier at low scores."""
    generator = np.random.default_rng(seed)
    score = generator.normal(size=num_pairs).round(1)
    return score, generator.random(num_pairs) < 1 / (1 + np.exp(2 * score))


@pytest.mark.parametrize(("num_pairs", "num_groups"), [(100, 20), (103, 10), (7, 7), (5, 1)])
def test_groups_are_the_naive_ones(num_pairs: int, num_groups: int) -> None:
    generator = np.random.default_rng(num_pairs)
    mean, std, gold = generator.normal(size=(3, num_pairs))
    clean = generator.random(num_pairs) < 0.7
    groups = grouped(mean, std, clean, gold, num_groups)
    assert groups.num_pairs.sum() == num_pairs
    assert np.ptp(groups.num_pairs) <= 1
    for found, values in zip(groups[1:], (mean, std, clean, gold), strict=True):
        np.testing.assert_allclose(found, reference.group_means(mean.tolist(), values.tolist(), num_groups))
    assert (np.diff(groups.mean) >= 0).all()


def test_means_are_over_the_known_and_pairs_without_strength_are_in_no_group() -> None:
    groups = grouped([3, nan, 1, 2, 4], [1, 9, 1, 3, 1], [None, True, True, False, None], num_groups=2)
    assert groups.num_pairs.tolist() == [2, 2]
    assert groups.mean.tolist() == [1.5, 3.5]
    assert groups.std.tolist() == [2, 1]
    np.testing.assert_equal(groups.clean, [0.5, nan])
    assert np.isnan(groups.gold_margin).all()


@pytest.mark.parametrize("num_groups", [0, 3])
def test_more_groups_than_pairs_are_refused(num_groups: int) -> None:
    with pytest.raises(ValueError, match=f"2 pairs with strength cannot be cut in {num_groups} groups"):
        grouped([1, 2, nan], [1, 1, 1], num_groups=num_groups)


@pytest.mark.parametrize(("std", "group"), [([0.3, 0.2, 0.6], 1), ([0.1, 0.2, 0.6], 0), ([3, 2, 1], 2)])
def test_u_shape_is_the_least_group_and_both_ends(std: list[float], group: int) -> None:
    empty = np.full(3, nan)
    shape = u_shape(Groups(np.ones(3, np.int64), empty, np.array(std), empty, empty))
    assert shape == (group, std[0], min(std), std[2])


def test_agreement_has_the_binomial_standard_error() -> None:
    """The pair without another label is left out before the groups are cut."""
    groups = agreement([5, 4, 3, -1, -2, -3, 9, -4], [True, True, True, False, True, False, None, False], 2)
    assert groups.num_pairs.tolist() == [4, 3]
    np.testing.assert_allclose(groups.mean, [-2.5, 4])
    np.testing.assert_allclose(groups.share, [0.25, 1])
    np.testing.assert_allclose(groups.error, [(0.25 * 0.75 / 4) ** 0.5, 0])


@pytest.mark.parametrize("seed", range(5))
def test_detection_is_the_naive_one(seed: int) -> None:
    score, wrong = made(60, seed)
    found = detection(score, wrong, cut=0.2)
    below = [w for s, w in zip(score, wrong, strict=True) if s < 0.2]
    # Ranked by torchmetrics in float32, which six digits of a share are safe in.
    assert found.auroc == pytest.approx(reference.auroc(score.tolist(), wrong.tolist()))
    assert found.average_precision == pytest.approx(reference.average_precision(score.tolist(), wrong.tolist()))
    assert found.cut_precision == pytest.approx(sum(below) / len(below))
    assert found.cut_recall == pytest.approx(sum(below) / sum(wrong))
    assert (found.num_pairs, found.num_wrong, found.num_unknown) == (60, wrong.sum(), 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_auroc_is_delongs(seed: int) -> None:
    """By the placements of each wrong label among the right ones and the other way round, pair by pair."""
    score, wrong = made(60, seed)
    low, high = auroc_interval(score, wrong)
    bad, good = ([float(s) for s, w in zip(score, wrong, strict=True) if w == kind] for kind in (1, 0))
    credit = [[(g > b) + (g == b) / 2 for g in good] for b in bad]
    variances = [
        statistics.variance([sum(row) / len(row) for row in rows]) / len(rows)
        for rows in (credit, [*zip(*credit, strict=True)])
    ]
    middle = reference.auroc(score.tolist(), wrong.tolist())
    half = 1.959963984540054 * math.sqrt(sum(variances)) / (middle * (1 - middle))
    logit = math.log(middle / (1 - middle))
    assert (low, high) == pytest.approx([1 / (1 + math.exp(-end)) for end in (logit - half, logit + half)])
    found = detection(score, wrong)
    assert (found.auroc_low, found.auroc_high) == (low, high)


@pytest.mark.parametrize(("num_pairs", "num_wrong", "apart"), [(200, 60, 1.0), (60, 10, 2.3)])
def test_nine_of_ten_intervals_of_auroc_hold_the_truth(num_pairs: int, num_wrong: int, apart: float) -> None:
    """Scores of wrong labels lie some standard deviations below those of right ones: AUROC is Phi(apart / sqrt 2).

    An interval of the AUROC itself, and not of its odds, holds .95 of ten wrong labels 160 times.
    """
    truth, rng = NormalDist().cdf(apart / math.sqrt(2)), np.random.default_rng(0)
    wrong = np.arange(num_pairs) < num_wrong
    found = [auroc_interval(rng.normal(size=num_pairs) - apart * wrong, wrong) for _ in range(200)]
    told = [low <= truth <= high for low, high in found if not math.isnan(low)]
    assert 0.9 * len(told) <= sum(told) < 200


@pytest.mark.parametrize(
    ("score", "wrong"),
    [([1, 2, 3], [1, 0, 0]), ([1, 2, 3, 4, 5], [1, 1, 0, 0, 0]), ([3, 3, 3, 3], [1, 1, 0, 0])],
    ids=["one wrong label", "all found", "all tied"],
)
def test_what_tells_nothing_of_the_spread_has_no_interval(score: list[float], wrong: list[int]) -> None:
    assert np.isnan(auroc_interval(score, wrong)).all()


def test_auroc_of_the_negated_score_is_the_rest() -> None:
    score, wrong = made(200)
    assert detection(-score, wrong).auroc == pytest.approx(1 - detection(score, wrong).auroc)
    assert detection(np.zeros(200), wrong).auroc == 0.5


def test_a_perfect_score_finds_all() -> None:
    found = detection([-2, -1, 1, 2, 3], [1, 1, 0, 0, 0])
    assert (found.auroc, found.average_precision) == (1, 1)
    assert (found.cut_precision, found.cut_recall) == (1, 1)
    assert (found.lowest, found.lowest_precision, found.lowest_recall) == (0.4, 1, 1)


def test_of_pairs_tied_at_the_edge_each_counts_in_part() -> None:
    """Flagging two of five where three are tied for the second place: the mean over all orders of the tied."""
    score, wrong = [0, 1, 1, 1, 2], [0, 1, 0, 0, 1]
    orders = [[wrong[0], *tied] for tied in permutations(wrong[1:4])]
    expected = sum(sum(order[:2]) for order in orders) / len(orders)
    found = detection(score, wrong, lowest=0.4)
    assert found.lowest_precision == pytest.approx(expected / 2)
    assert found.lowest_recall == pytest.approx(expected / 2)
    assert detection(score, wrong, lowest=1.0).lowest_recall == 1


def test_precision_and_recall_are_one_number_where_the_wrong_share_is_flagged() -> None:
    score, wrong = made(100)
    found = detection(score, wrong)
    assert found.lowest == wrong.mean()
    assert found.lowest_precision == pytest.approx(found.lowest_recall)


def test_pairs_without_truth_or_score_are_left_out_and_counted() -> None:
    known = detection([1, -1, 2, -2], [False, True, True, False])
    found = detection([1, -1, 5, nan, 2, -2], [False, True, None, True, True, False])
    assert found.num_unknown == 2
    assert found[:-1] == known[:-1]


def test_nothing_below_the_cut_has_no_precision_and_no_recall() -> None:
    found = detection([1, 2], [True, False])
    assert np.isnan(found.cut_precision)
    assert found.cut_recall == 0


@pytest.mark.parametrize(("wrong", "counts"), [([0, 0], "0 of 2"), ([1, 1], "2 of 2"), ([nan, nan], "0 of 0")])
def test_detection_needs_both_kinds(wrong: list[float], counts: str) -> None:
    for function in (detection, flagged):
        with pytest.raises(ValueError, match=f"{counts} known labels are wrong"):
            function([1, 2], wrong)


@pytest.mark.parametrize("lowest", [0.0, -0.1, 1.1])
def test_what_is_no_share_is_refused(lowest: float) -> None:
    with pytest.raises(ValueError, match="not a share of the pairs"):
        detection([1, 2], [0, 1], lowest=lowest)


def test_flagged_counts_tied_pairs_at_once() -> None:
    curve = flagged([2, 1, 1, 3], [1, 1, 0, 0])
    assert curve.num_flagged.tolist() == [2, 3, 4]
    assert curve.num_found.tolist() == [1, 2, 2]
    assert curve.precision.tolist() == [1 / 2, 2 / 3, 1 / 2]
    assert curve.recall.tolist() == [1 / 2, 1, 1]


def test_scores_of_voters_of_one_mind_are_infinite() -> None:
    scores = detection_scores([2, -3, 0, 1, nan], [0.5, 0, 0, 0, nan], [1, 0, 0.5, 1, nan])
    assert list(scores) == ["mean", "vote share", "mean / std"]
    np.testing.assert_equal(scores["mean / std"], [4, -inf, 0, inf, nan])
    assert detection(scores["mean / std"], [0, 1, 0, 0, 1]).auroc == 1


def test_correlation_is_the_naive_one_and_spearman_shares_tied_ranks() -> None:
    """Ranks 1, 2.5, 2.5, 4 against 2, 1, 3, 4: by hand, 3 / sqrt(4.5 * 5)."""
    mean, gold = [0.0, 1.0, 1.0, 7.0], [2.0, 1.0, 3.0, 9.0]
    found = correlation([*mean, nan, 3], [*gold, 5, nan])
    assert found.spearman == pytest.approx(3 / (4.5 * 5) ** 0.5)
    assert found.spearman == pytest.approx(reference.pearson(reference.ranks(mean), reference.ranks(gold)))
    assert found.pearson == pytest.approx(reference.pearson(mean, gold))
    assert found.num_pairs == 4


@pytest.mark.parametrize("mean", [[1.0, nan], [1.0, 1.0]])
def test_what_does_not_vary_has_no_correlation(mean: ArrayLike) -> None:
    with pytest.raises(ValueError, match="no correlation over"):
        correlation(mean, [1.0, 2.0])
