"""What goes into a curation and what comes out: its rules and its decisions. Only data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_rm.analysis.noise import WrongLabels
from lightning_rm.annotation.reviews import Verdict
from lightning_rm.annotation.votes import Votes
from lightning_rm.curation.conflicts import Conflicts
from lightning_rm.curation.facts import Facts
from lightning_rm.curation.heart import ByHeart
from lightning_rm.strength.policies import PolicyName


@dataclass(frozen=True)
class Rules:
    """How to decide what becomes of a pair.

    Args:
        policy: `flip_weakest`, `agreement`, `soft` or `drop` (see `strength.policies.policy`).
        share: of the pairs, to flip or to drop; None for the estimate of wrong labels, or a tenth where there is none.
        agree: share of the votes that is agreement.
        temperature: of soft labels.
        reviews: a file of people's decisions, which count whatever the policy says.
    """

    policy: PolicyName = "flip_weakest"
    share: float | None = None
    agree: float = 0.8
    temperature: float = 1.0
    reviews: str | Path | None = None


@dataclass(frozen=True)
class Curated:
    """What was decided of R rows of a source.

    Args:
        votes: of all voters, on N of the rows.
        decision: (N,) `kept`, `flipped`, `softened` or `set aside`.
        counts: decision -> rows of the source; they sum to R.
        share: of the pairs that the policy was given.
        wrong: the estimate of wrong labels.
        by_heart: whether the voters have learned labels by heart.
        verdicts: pair id -> what reviewers say.
        conflicts: rows that contradict each other.
        facts: of every row.
        is_new: (N,) whether the voters were not trained on a pair.
        files: what was written.
    """

    votes: Votes
    decision: NDArray[np.str_]
    counts: Mapping[str, int]
    share: float
    wrong: WrongLabels
    by_heart: ByHeart
    verdicts: Mapping[str, Verdict]
    conflicts: Conflicts
    facts: Facts
    is_new: NDArray[np.bool_]
    files: Sequence[Path]
