"""Strengths and treatments against the paper's worked row, naive loops and what must hold of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm import strength as s
from lightning_rm.losses import ranking_loss
from tests import reference
from tests.float64 import same

NAN = float("nan")
# A row of fnlp/hh-rlhf-strength-cleaned.
REJECTED = [3.546875, 0.9921875, 2.125, -0.330078125, 1.171875, 1.2578125, 1.078125, 1.0546875, 3.546875, 2.265625]
CHOSEN = [3.71875, 0.58984375, 3.390625, 0.006805419921875, -0.6953125, 1.0390625, 1.4140625, 0.8359375, 3.078125, 2.0]

floats = st.floats(-20, 20, allow_nan=False)


def some_pairs(num_pairs: int = 40, seed: int = 0) -> tuple[s.Strength, torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    votes = draw.normal(size=(num_pairs, 10)) + draw.normal(size=(num_pairs, 1))
    rewards = torch.from_numpy(draw.normal(size=(2, num_pairs)))
    return s.Strength.of_votes(votes), rewards[0], rewards[1]


def loss_of(targets: s.Targets, chosen: torch.Tensor, rejected: torch.Tensor) -> float:
    kept = torch.from_numpy(targets.kept)
    columns = [torch.from_numpy(x)[kept] for x in (targets.label, targets.margin, targets.weight)]
    return ranking_loss(chosen[kept], rejected[kept], *columns).item()


def test_the_papers_row() -> None:
    """Ten votes of the published data: mean -0.1331, population standard deviation 0.7560."""
    strength = s.Strength.of_votes([np.subtract(CHOSEN, REJECTED)])
    assert strength.mean[0] == pytest.approx(-0.1331, abs=5e-5)
    assert strength.std[0] == pytest.approx(0.7560, abs=5e-5)
    assert strength.share[0] == 0.4


@given(st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=12))
def test_strength_is_equation_4(votes: list[list[float]]) -> None:
    strength = s.Strength.of_votes(votes)
    for i, row in enumerate(votes):
        mean, std = reference.strength(row)
        assert strength.mean[i] == same(mean)
        assert strength.std[i] == pytest.approx(std, abs=1e-6)
    assert strength.quantile.tolist() == [reference.quantile(strength.mean.tolist(), i) for i in range(len(votes))]


def test_voters_without_a_say_do_not_count() -> None:
    """Votes 1, -3 and one who has no say: mean -1, spread 2, one of two for chosen; a vote of 0 counts half."""
    strength = s.Strength.of_votes([[1.0, NAN, -3.0], [NAN, NAN, 0.0], [NAN, NAN, NAN]])
    np.testing.assert_array_equal(strength.mean, [-1.0, 0.0, NAN])
    np.testing.assert_array_equal(strength.std, [2.0, 0.0, NAN])
    np.testing.assert_array_equal(strength.share, [0.5, 0.5, NAN])
    np.testing.assert_array_equal(strength.quantile, [0.0, 0.5, NAN])


RECIPES: dict[str, list[s.Treatment]] = {
    "flip": [partial(s.flip, below_quantile=0.1)],
    "margin": [s.adaptive_margin],
    "flip_margin": [partial(s.flip, below_quantile=0.1), s.adaptive_margin],
    "soft_label_margin": [partial(s.label_smoothing, alpha=0.2, pairs="negative"), s.adaptive_margin],
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_four_recipes(name: str, seed: int) -> None:
    strength, chosen, rejected = some_pairs(seed=seed)
    targets = s.treat(strength, s.Targets.plain(len(strength)), RECIPES[name])
    expected = reference.recipe_loss(name, chosen.tolist(), rejected.tolist(), strength.mean.tolist())
    assert loss_of(targets, chosen, rejected) == same(expected)


@pytest.mark.parametrize("keep_margin", [False, True])
def test_a_flipped_pairs_margin(keep_margin: bool) -> None:
    """m = -2, rewards 0.5 and 0.2. Places changed, the logit is 0.2 - 0.5 - 2 (negated) or 0.2 - 0.5 + 2 (kept)."""
    strength = s.Strength.of([-2.0], [1.0], [0.1])
    treatments = [partial(s.flip, below_mean=0.0, keep_margin=keep_margin), s.adaptive_margin]
    targets = s.treat(strength, s.Targets.plain(1), treatments)
    logit = 0.2 - 0.5 + (2.0 if keep_margin else -2.0)
    expected = -reference.log_sigmoid(logit)
    assert loss_of(targets, *torch.tensor([[0.5], [0.2]], dtype=torch.float64)) == same(expected)


TREATMENTS: dict[str, s.Treatment] = {
    "flip": partial(s.flip, below_quantile=0.2),
    "flip keeping margins": partial(s.flip, below_mean=0.0, keep_margin=True),
    "smoothing": partial(s.label_smoothing, alpha=0.1, pairs=[0.0, 0.5]),
    "smoothing negative": partial(s.label_smoothing, alpha=0.1, pairs="negative"),
    "margin": partial(s.adaptive_margin, scale=0.5, clip=1.0),
    "clamped margin": partial(s.adaptive_margin, clamp=True),
    "weight": s.weight,
    "drop": partial(s.drop, ranges=[[0.0, 0.1]]),
    "select": partial(s.select, ranges=[[0.3, 0.9]]),
    "decile": partial(s.decile, number=3),
    "prefix": partial(s.prefix, share=0.4, end="strong"),
    "soft label": s.soft_label,
    "votes": partial(s.soft_label, source="votes"),
    "corrected": s.noise_corrected,
}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("flip", "smoothing"),
        ("flip", "margin"),
        ("flip keeping margins", "margin"),
        ("flip", "flip keeping margins"),
        ("smoothing", "margin"),
        ("drop", "select"),
        ("drop", "flip"),
        ("soft label", "margin"),
    ],
)
def test_what_should_commute_does(first: str, second: str) -> None:
    strength, _, _ = some_pairs()
    plain = s.Targets.plain(len(strength))
    one = s.treat(strength, plain, [TREATMENTS[first], TREATMENTS[second]])
    other = s.treat(strength, plain, [TREATMENTS[second], TREATMENTS[first]])
    for name in ("label", "margin", "weight", "flipped", "kept"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)


def test_pairs_are_dropped_before_the_others_are_weighed() -> None:
    """Backings 0.5 (the floor), 1 and 3 of which the first goes: the mean weight of 1 and 3 is 2, of all three 1.5.

    Either way the pairs weigh as much beside one another; in the other order the loss does not keep its scale.
    """
    strength = s.Strength.of([-1.0, 1.0, 3.0], [1.0] * 3, [0.5] * 3)
    drop, weight = partial(s.drop, ranges=[[0.0, 0.3]]), partial(s.weight, floor=0.5)
    for order, expected in (([drop, weight], [0.5, 1.5]), ([weight, drop], [1 / 1.5, 3 / 1.5])):
        targets = s.treat(strength, s.Targets.plain(3), order)
        assert targets.weight[targets.kept].tolist() == same(expected)


@pytest.mark.parametrize("name", TREATMENTS)
def test_finished_targets_told_the_other_way_round_train_alike(name: str) -> None:
    """Chosen and rejected change places, the label and the margin with them: the loss of every pair is the same."""
    strength, chosen, rejected = some_pairs()
    targets = s.treat(strength, s.Targets.plain(len(strength)), [TREATMENTS[name]])
    assert loss_of(mirrored(targets), rejected, chosen) == same(loss_of(targets, chosen, rejected))


def mirrored(targets: s.Targets) -> s.Targets:
    return replace(targets, label=1 - targets.label, margin=-targets.margin)


def swapped(strength: s.Strength) -> s.Strength:
    """What the voters say of (rejected, chosen): every vote negated."""
    return s.Strength.of(-strength.mean, strength.std, 1 - strength.share)


CHAINS = {name: [treatment] for name, treatment in TREATMENTS.items()} | {
    # These two ask no voter, and are for pairs without strength too.
    "smoothing all": [partial(s.label_smoothing, alpha=0.1)],
    "corrected by a rate": [partial(s.noise_corrected, error=0.2)],
    "flip and margin": [TREATMENTS["flip"], TREATMENTS["margin"]],
    "flip keeping margins and margin": [partial(s.flip, below_quantile=0.2, keep_margin=True), TREATMENTS["margin"]],
    "flip and weight": [TREATMENTS["flip"], TREATMENTS["weight"]],
    "drop and weight": [TREATMENTS["drop"], TREATMENTS["weight"]],
    "soft label and weight": [TREATMENTS["soft label"], TREATMENTS["weight"]],
}
# These choose by the sign of the strength, which is the voters' word on a label of 1. Of a pair with the label 0 they
# choose the opposite: not those that the voters contradict but those that they back, so nothing is mirrored.
BY_SIGN = ("flip keeping margins", "smoothing negative")
# These look at a pair by itself: at its label and what the voters say of it.
BY_ITSELF = (
    "smoothing all",
    "margin",
    "clamped margin",
    "weight",
    "soft label",
    "votes",
    "corrected",
    "corrected by a rate",
    "soft label and weight",
)


@pytest.mark.parametrize("name", [name for name in CHAINS if name not in BY_SIGN])
def test_a_pair_told_the_other_way_round_is_treated_alike(name: str) -> None:
    """Chosen and rejected change places, votes and margins are negated, the label y is 1 - y: the targets are mirrored.

    Treatments that choose pairs by quantile choose by the rank among all strengths, as (chosen, rejected) are told: the
    rank is held, for the weakest of pairs that are told the other way round are the strongest.
    """
    strength, chosen, rejected = some_pairs()
    draw = np.random.default_rng(1)
    before = s.Targets.of(draw.uniform(size=40), draw.normal(size=40), draw.uniform(0.5, 2, size=40))
    other = swapped(strength)
    if name not in BY_ITSELF:
        other = replace(other, quantile=strength.quantile)
    expected = mirrored(s.treat(strength, before, CHAINS[name]))
    found = s.treat(other, mirrored(before), CHAINS[name])
    for column in ("label", "margin", "weight", "flipped", "kept", "strength_sign"):
        np.testing.assert_allclose(getattr(found, column), getattr(expected, column), atol=1e-12)
    loss = loss_of(s.treat(strength, before, CHAINS[name]), chosen, rejected)
    assert loss_of(found, rejected, chosen) == same(loss)


@pytest.mark.parametrize("name", TREATMENTS)
def test_pairs_without_strength_are_left_as_they_are(name: str) -> None:
    mean = np.array([NAN, -1.0, 2.0, NAN])
    strength = s.Strength.of(mean, np.abs(mean), np.where(np.isnan(mean), NAN, 0.5))
    before = s.Targets.of([0.9, 1.0, 1.0, 0.3], [0.5, 0.0, 0.0, -0.5], [1.0, 1.0, 1.0, 2.0])
    after = s.treat(strength, before, [TREATMENTS[name]])
    for column in ("label", "margin", "weight", "flipped"):
        np.testing.assert_array_equal(getattr(after, column)[[0, 3]], getattr(before, column)[[0, 3]])


@settings(max_examples=50)
@given(st.lists(floats, min_size=1, max_size=50), st.sampled_from([0.05, 0.1, 0.2, 0.5, 1.0]))
def test_flip_turns_the_weakest_and_nothing_else(means: list[float], share: float) -> None:
    strength = s.Strength.of(means, np.ones(len(means)), np.full(len(means), 0.5))
    flipped = s.flip(strength, s.Targets.plain(len(means)), below_quantile=share).flipped
    assert flipped.sum() == sum(rank < share * len(means) for rank in range(len(means)))
    if 0 < flipped.sum() < len(means):
        assert strength.mean[flipped].max() <= strength.mean[~flipped].min()


def test_soft_labels_and_smoothing_in_numbers() -> None:
    strength = s.Strength.of([0.0, 2.0, -2.0], [1.0] * 3, [0.5, 0.9, 0.2])
    plain = s.Targets.plain(3)
    assert s.soft_label(strength, plain).label.tolist() == pytest.approx([0.5, 0.880797, 0.119203], abs=1e-6)
    assert s.soft_label(strength, plain, temperature=2.0).label[1] == same(reference.sigmoid(1.0))
    assert s.soft_label(strength, plain, source="votes").label.tolist() == [0.5, 0.9, 0.2]
    assert s.label_smoothing(strength, plain, alpha=0.2, pairs="negative").label.tolist() == [1.0, 1.0, 0.8]
    assert s.label_smoothing(strength, plain, alpha=0.2, pairs=[0.6, 1.0]).label.tolist() == [1.0, 0.8, 1.0]


def test_margins_in_numbers() -> None:
    strength = s.Strength.of([-3.0, 0.5, 4.0], [1.0] * 3, [0.0, 0.6, 1.0])
    plain = s.Targets.plain(3)
    assert s.adaptive_margin(strength, plain).margin.tolist() == [-3.0, 0.5, 4.0]
    assert s.adaptive_margin(strength, plain, scale=0.5, clip=1.0).margin.tolist() == [-1.0, 0.25, 1.0]
    assert s.adaptive_margin(strength, plain, clamp=True).margin.tolist() == [0.0, 0.5, 4.0]
    flipped = s.flip(strength, plain, below_mean=0.0)
    assert s.adaptive_margin(strength, flipped, clamp=True).margin.tolist() == [-3.0, 0.5, 4.0]


@given(st.integers(1, 60), st.integers(1, 60))
def test_levels_by_rank_are_equal_parts_of_the_pairs(num_pairs: int, num_levels: int) -> None:
    strength = s.Strength.of_votes(np.arange(1.0, num_pairs + 1)[:, None])
    level = s.levels(strength, s.Targets.plain(num_pairs), source="quantile", num_levels=num_levels).level
    assert level.tolist() == [rank * num_levels // num_pairs + 1 for rank in range(num_pairs)]


def test_weights_keep_the_scale_of_the_loss() -> None:
    """Backings 3 (flipped), 0.1 (the floor), 4 are divided by their mean."""
    strength = s.Strength.of([-3.0, -0.5, 4.0], [1.0] * 3, [0.0, 0.6, 1.0])
    flipped = s.flip(strength, s.Targets.plain(3), below_quantile=0.3)
    weights = s.weight(strength, flipped, floor=0.1).weight
    assert weights.tolist() == same([3 / (7.1 / 3), 0.1 / (7.1 / 3), 4 / (7.1 / 3)])
    assert weights.mean() == same(1.0)


@given(floats, st.floats(0, 0.4))
def test_the_noise_corrected_loss_is_unbiased(logit: float, rate: float) -> None:
    """With the label wrong by probability e, the corrected loss has the clean loss as its mean."""
    strength = s.Strength.of([1.0], [1.0], [1 - rate])
    label = torch.from_numpy(s.noise_corrected(strength, s.Targets.plain(1)).label)
    z = torch.tensor([logit], dtype=torch.float64)
    right, wrong = (ranking_loss(sign * z, torch.zeros_like(z), label).item() for sign in (1, -1))
    clean = -reference.log_sigmoid(logit)
    assert (1 - rate) * right + rate * wrong == same(clean)


def test_deciles_and_prefixes_cut_all_pairs() -> None:
    strength, _, _ = some_pairs(103)
    plain = s.Targets.plain(103)
    deciles = [s.decile(strength, plain, number=number).kept for number in range(10)]
    assert np.sum(deciles, axis=0).tolist() == [1] * 103
    weak = s.prefix(strength, plain, share=0.3, end="weak").kept
    np.testing.assert_array_equal(weak, deciles[0] | deciles[1] | deciles[2])
    assert s.prefix(strength, plain, share=1.0, end="strong").kept.all()


@pytest.mark.parametrize("num_pairs", [10, 20, 30, 300])
def test_a_share_is_as_many_pairs_from_either_end(num_pairs: int) -> None:
    """Of ten pairs .7 are seven, though 1 - .7 in floating point is above the quantile 3 / 10 of the fourth."""
    strength, _, _ = some_pairs(num_pairs)
    plain = s.Targets.plain(num_pairs)
    for share in (0.05, 0.15, 0.3, 1 / 3, 0.35, 0.55, 2 / 3, 0.7, 0.85, 0.95):
        weak, strong = (s.prefix(strength, plain, share=share, end=end).kept for end in ("weak", "strong"))
        assert weak.sum() == math.ceil(round(share * num_pairs, 9)), share
        assert strong.sum() == math.floor(round(share * num_pairs, 9)), share
        assert strength.mean[strong].min(initial=math.inf) >= strength.mean[~strong].max(initial=-math.inf)


@pytest.mark.parametrize("keep_margin", [False, True])
def test_a_soft_label_undoes_a_flip(keep_margin: bool) -> None:
    """The voters' belief is of chosen over rejected, whatever was turned round before; the third pair has no voters."""
    strength = s.Strength.of([-2.0, 2.0, NAN], [1.0, 1.0, NAN], [0.1, 0.9, NAN])
    before = s.Targets.of([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [1.0] * 3)
    flip = partial(s.flip, below_quantile=1.0, keep_margin=keep_margin)
    for rest in ([s.soft_label], [s.soft_label, s.adaptive_margin]):
        found = s.treat(strength, before, [flip, *rest])
        expected = s.treat(strength, before, rest)
        for column in ("label", "margin", "weight", "flipped", "kept", "strength_sign"):
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


@pytest.mark.parametrize(
    ("treatment", "message"),
    [
        (s.flip, "below_quantile or below_mean, one of them"),
        (partial(s.flip, below_quantile=10), "not a quantile"),
        (partial(s.label_smoothing, alpha=0.6), "alpha=0.6"),
        (partial(s.label_smoothing, pairs="weak"), "all, negative, or a range"),
        (partial(s.soft_label, source="median"), "from 'mean' or from 'votes'"),
        (partial(s.soft_label, temperature=0), "temperature=0"),
        (partial(s.adaptive_margin, clip=-1), "clip=-1"),
        (partial(s.weight, floor=0), "floor=0"),
        (partial(s.noise_corrected, error=0.5), "below 0.5"),
        (partial(s.drop, ranges=[[0.5, 0.2]]), r"\[0.5, 0.2\] is not a range"),
        (partial(s.decile, number=10), "number=10"),
        (partial(s.prefix, share=0), "share=0"),
        (partial(s.prefix, share=0.5, end="middle"), "middle"),
    ],
)
def test_mistakes_are_named(treatment: Callable[..., Any], message: str) -> None:
    strength, _, _ = some_pairs()
    with pytest.raises(ValueError, match=message):
        treatment(strength, s.Targets.plain(len(strength)))


def test_a_mean_alone_has_no_vote_share() -> None:
    strength = s.Strength.of([1.0], [1.0], [NAN])
    with pytest.raises(ValueError, match="no votes"):
        s.noise_corrected(strength, s.Targets.plain(1))


def test_peoples_levels_come_through_and_quantiles_have_equal_shares() -> None:
    """-3 to 3 as they are; of six sizes 0.1 ... 0.6, two for each of three levels; without strength none."""
    told = s.Strength.of([3.0, 1.0, 0.0, -2.0, 7.0, NAN], [0.0] * 6, [NAN] * 6)
    with pytest.warns(UserWarning, match="1 of 6 strengths are beyond level 3 and count as it"):
        level = s.levels(told, s.Targets.plain(6)).level
    np.testing.assert_array_equal(level, [3, 1, 0, -2, 3, NAN])
    of_voters = s.Strength.of([0.1, -0.2, 0.3, 0.4, -0.5, 0.6], [1.0] * 6, [NAN] * 6)
    ranked = s.levels(of_voters, s.Targets.plain(6), source="quantile").level
    assert ranked.tolist() == [1, -1, 2, 2, -3, 3]
    flipped = s.treat(of_voters, s.Targets.plain(6), [partial(s.flip, below_mean=0.0, keep_margin=True), s.levels])
    assert flipped.level.tolist() == [0, 0, 0, 0, 0, 1]


def test_levels_of_votes_are_their_share() -> None:
    """Of ten votes 10, 5, 3 and 0 for chosen: shares 1, .5, .3, 0 are the levels 5, 0, -2, -5 of ten votes."""
    votes = np.where(np.arange(10) < np.array([10, 5, 3, 0])[:, None], 1.0, -1.0)
    level = s.levels(s.Strength.of_votes(votes), s.Targets.plain(4), source="votes", num_levels=5).level
    assert level.tolist() == [5, 0, -2, -5]
    with pytest.raises(ValueError, match="num_levels=0"):
        s.levels(s.Strength.of_votes(votes), s.Targets.plain(4), num_levels=0)


def test_weights_of_levels_are_inf_orms() -> None:
    """Strengths 1, 2, 3 weigh 1, 3, 10 over their mean; half way between two their mean; contradicted, the floor."""
    told = s.Strength.of([1.0, 2.0, 3.0, 2.5, -3.0], [0.0] * 5, [NAN] * 5)
    weight = s.weight(told, s.Targets.plain(5), of_level=[1, 3, 10], floor=0.5).weight
    expected = np.array([1, 3, 10, 6.5, 0.5])
    assert weight.tolist() == same((expected / expected.mean()).tolist())
    with pytest.warns(UserWarning, match="2 of 5 strengths are beyond the 2 of of_level= and weigh as its last"):
        s.weight(told, s.Targets.plain(5), of_level=[1, 3])
    for wrong in ([], [0, 0, 0], ["a"]):
        with pytest.raises(ValueError, match=r"of_level=.*: give the weight of each strength"):
            s.weight(told, s.Targets.plain(5), of_level=wrong)  # pyright: ignore[reportArgumentType]


def test_shares_of_votes_end_to_end_are_those_of_each_pair() -> None:
    """A voter without a say on one pair, or a pair without votes, changes nothing of the pairs behind it."""
    rows = [[1.0, -1.0, 0.0], [2.0, NAN], [], [-1.0, 3.0, 4.0, -2.0], [NAN]]
    offsets = np.cumsum([0, *map(len, rows)])
    found = s.vote_shares(np.array([vote for row in rows for vote in row]), offsets)
    np.testing.assert_equal(found, [0.5, 1.0, NAN, 0.5, NAN])


@pytest.mark.parametrize(
    ("treatment", "options"),
    [
        (s.flip, {"below_mean": NAN}),
        (s.soft_label, {"temperature": NAN}),
        (s.adaptive_margin, {"scale": NAN}),
        (s.adaptive_margin, {"clip": NAN}),
        (s.levels, {"scale": NAN}),
        (s.levels, {"num_levels": 2.5}),
        (s.weight, {"floor": NAN}),
        (s.weight, {"clip": NAN}),
        (s.label_smoothing, {"alpha": NAN}),
        (s.noise_corrected, {"error": NAN}),
    ],
)
def test_what_is_no_number_is_refused_and_not_made_a_target(treatment: Any, options: dict[str, float]) -> None:
    strength, targets = s.Strength.of_votes([[0.5], [-0.5]]), s.Targets.plain(2)
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        treatment(strength, targets, **options)
