"""Several opinions on one scale: weights are votes, and what an annotated file says of them agrees with itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from lightning_rm.annotation.votes import Votes
from lightning_rm.curation.opinions import Opinion, opinion_of, with_opinions
from lightning_rm.data.store.pairs import PairDataset

# Rows 0 and 2 of three are pairs.
PAIRS = cast(PairDataset, SimpleNamespace(source_row=np.array([0, 2])))
VOTES = Votes(PAIRS, ("a", "b"), np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [3.0, 4.0]]))


def test_votes_are_scaled_and_counted_by_weight() -> None:
    """The own votes have a root mean square of sqrt(12.5), those of the other one 10: they shrink to 3.5355."""
    other = Opinion("judge", np.array([[-10.0], [99.0], [-10.0]]), weight=2)
    found = with_opinions(VOTES, [other])
    scaled = 12.5**0.5
    np.testing.assert_allclose(found.votes, [[3, 4, -scaled, -scaled], [-3, -4, -scaled, -scaled]], rtol=1e-12)
    assert found.voters == ("a", "b", "judge#0", "judge#1")
    np.testing.assert_allclose(found.strength.mean[0], (7 - 2 * scaled) / 4, rtol=1e-12)
    assert found.strength.share.tolist() == [0.5, 0.0]


def test_an_opinion_may_say_nothing_of_a_pair() -> None:
    found = with_opinions(VOTES, [Opinion("second", np.array([[np.nan], [1.0], [1.0]]))])
    assert found.strength.mean[0] == 3.5
    assert found.voters == ("a", "b", "second")


def test_votes_on_pairs_are_an_opinion_on_rows() -> None:
    np.testing.assert_array_equal(opinion_of(VOTES, 3, "x").votes, [[3, 4], [np.nan, np.nan], [-3, -4]])


def test_an_opinion_that_says_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="mute says nothing of any of the 2 pairs"):
        with_opinions(VOTES, [Opinion("mute", np.full((3, 1), np.nan))])
    with pytest.raises(ValueError, match=r"weight=0\.5 of half"):
        Opinion("half", np.ones((3, 1)), weight=0.5)  # pyright: ignore[reportArgumentType]  # what a user may give
