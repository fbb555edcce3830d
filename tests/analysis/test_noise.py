"""The share of wrong labels from votes alone: its interval holds the planted share, and says when it cannot be told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_rm.analysis.noise import wrong_labels


def made_votes(noise: float, num_pairs: int, seed: int) -> np.ndarray:
    """Votes of a voter that is right with probability sigmoid(2 c), told of labels of which a share is turned round."""
    draw = np.random.default_rng(seed)
    size = draw.gamma(1.5, 1.0, num_pairs)
    agrees_with_truth = draw.random(num_pairs) < 1 / (1 + np.exp(-2 * size))
    is_wrong = draw.random(num_pairs) < noise
    return np.where(agrees_with_truth != is_wrong, size, -size)


@pytest.mark.parametrize("noise", [0.05, 0.15, 0.25, 0.35])
def test_the_interval_holds_the_planted_share_in_nine_of_ten_worlds(noise: float) -> None:
    found = [wrong_labels(made_votes(noise, 2000, seed)) for seed in range(10)]
    assert sum(one.low <= noise <= one.high for one in found) >= 9
    assert abs(np.mean([one.share for one in found]) - noise) < 0.02
    assert all(one.is_told for one in found)


def test_the_scale_of_the_votes_says_nothing() -> None:
    votes = made_votes(0.2, 1000, 0)
    assert wrong_labels(1000 * votes) == wrong_labels(votes)


def test_the_likelihood_is_that_of_a_loop() -> None:
    """Of distinct votes fewer than bins each is a bin of its own: the maximum over a coarse grid, by hand."""
    votes = made_votes(0.3, 150, 1)
    size = np.abs(votes) / np.sqrt(np.mean(votes**2))

    def log_likelihood(share: float) -> float:
        best = -math.inf
        for slope in np.geomspace(0.05, 50, 121):
            total = 0.0
            for one, vote in zip(size, votes, strict=True):
                agree = share + (1 - 2 * share) / (1 + math.exp(-slope * one))
                total += math.log(agree if vote > 0 else max(1 - agree, 1e-300))
            best = max(best, total)
        return best

    found = wrong_labels(votes)
    at_the_estimate, below, above = (log_likelihood(found.share + step) for step in (0, -0.02, 0.02))
    assert at_the_estimate >= max(below, above)
    assert at_the_estimate - log_likelihood(found.low) <= 1.93
    assert at_the_estimate - log_likelihood(max(found.low - 0.002, 0)) >= 1.91


@pytest.mark.parametrize("votes", [[], [math.nan], [0.0, 0.0]])
def test_of_nothing_nothing_is_told(votes: list[float]) -> None:
    found = wrong_labels(votes)
    assert math.isnan(found.share)
    assert not found.is_told


def test_few_pairs_do_not_tell() -> None:
    assert not wrong_labels([1.0, -0.5, 0.2]).is_told
    few, many = (wrong_labels(made_votes(0.05, num, 0)) for num in (400, 600))
    assert few.high - few.low < 0.3
    assert (few.is_told, many.is_told) == (False, True)
