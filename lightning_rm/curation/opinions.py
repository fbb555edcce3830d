"""More than one opinion: votes of reward models of any family, of a judge behind an address, of a second label.

Reward models have scales of their own. The votes of every further one are scaled so that their root mean square is that
of the first ones; a weight is a whole number, how many times a vote counts. So mean, spread and share of all votes are
what they always are, and the annotated file says the same to whoever reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightning_rm.annotation.votes import Votes


@dataclass(frozen=True)
class Opinion:
    """What somebody says of the rows of a source.

    Args:
        name: how it is called.
        votes: (R, M) on each of the R rows, good and bad: above 0 for chosen; NaN for a row without a vote.
        weight: how many times each of its votes counts.

    Raises:
        ValueError: for a weight that is not a whole number above 0.
    """

    name: str
    votes: NDArray[np.float64]
    weight: int = 1

    def __post_init__(self) -> None:
        if self.weight != int(self.weight) or self.weight < 1:
            raise ValueError(f"weight={self.weight} of {self.name}: a weight is how many votes it has; give 1 or more")


def opinion_of(votes: Votes, num_rows: int, name: str, weight: int = 1) -> Opinion:
    """Turn votes on tokenised pairs into an opinion on the rows of the source that the pairs were read from."""
    by_row = np.full((num_rows, len(votes.voters)), np.nan)
    by_row[votes.pairs.source_row] = votes.votes
    return Opinion(name, by_row, weight)


def with_opinions(votes: Votes, opinions: Sequence[Opinion]) -> Votes:
    """Add other opinions on the same pairs to the votes, all on one scale.

    Args:
        votes: of the first voters; which pairs there are, and the scale, are theirs.
        opinions: of others.

    Raises:
        ValueError: if an opinion has no vote on any of the pairs.
    """
    scale = _size(votes.votes)
    for opinion in opinions:
        said = opinion.votes[votes.pairs.source_row]
        size = _size(said)
        if not size > 0:
            raise ValueError(f"{opinion.name} says nothing of any of the {len(said):,} pairs, or prefers neither side")
        scaled = np.repeat(said * (scale / size), int(opinion.weight), axis=1)
        names = tuple(
            opinion.name if said.shape[1] * opinion.weight == 1 else f"{opinion.name}#{number}"
            for number in range(scaled.shape[1])
        )
        votes = replace(
            votes,
            voters=(*votes.voters, *names),
            chosen=np.concatenate([votes.chosen, scaled], axis=1),
            rejected=np.concatenate([votes.rejected, np.where(np.isnan(scaled), np.nan, 0.0)], axis=1),
        )
    return votes


def _size(votes: NDArray[np.float64]) -> float:
    """Return the root mean square of the votes there are; NaN where there are none."""
    known = votes[~np.isnan(votes)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")
