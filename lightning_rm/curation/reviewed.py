"""What reviews tell of the pairs that nobody has looked at: how often a flip is right by decile, and how many to flip.

It knows verdicts and strengths; no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_rm.analysis.flips import deciles_to_flip, flip_precision
from lightning_rm.annotation.reviews import Verdict

ENOUGH = 50
"""How many reviews it takes until there is something to say."""

WRONG: Mapping[Verdict, float] = {"keep": 0.0, "flip": 1.0, "tie": 0.5, "skip": np.nan}
"""What a verdict says of the label."""


def flip_rows(
    quantile: NDArray[np.float64], ids: Sequence[str], verdicts: Mapping[str, Verdict]
) -> tuple[list[dict[str, object]], str]:
    """Return one row a decile of strength, and what follows, in a sentence; no rows before there are enough reviews.

    Args:
        quantile: (N,) rank of each pair's strength in [0, 1), 0 the weakest; NaN for a pair without votes.
        ids: (N,) their names.
        verdicts: name -> what reviewers say.
    """
    wrong = np.array([WRONG[verdicts.get(name, "skip")] for name in ids])
    known = ~np.isnan(quantile)
    num_reviewed = int((known & ~np.isnan(wrong)).sum())
    if num_reviewed < ENOUGH:
        return [], f"{num_reviewed} reviews: from {ENOUGH} on they tell of the other pairs."
    found = flip_precision((10 * quantile[known]).astype(np.int64), wrong[known])
    rows: list[dict[str, object]] = [
        {
            "decile": decile,
            "pairs": int(found.num_pairs[decile]),
            "reviewed": int(found.num_right[decile] + found.num_wrong[decile] + found.num_ties[decile]),
            "label wrong": int(found.num_wrong[decile]),
            "a flip is right": float(found.precision[decile]),
            "low": float(found.low[decile]),
            "high": float(found.high[decile]),
        }
        for decile in range(10)
    ]
    num = deciles_to_flip(found)
    told = (
        f"In each of the weakest {num} deciles a flip is right more often than not, beyond chance: share={num / 10:g}."
        if num
        else "That a flip is right more often than not cannot be told of the weakest decile: share=0, or more reviews."
    )
    return rows, f"{told} That holds for pairs that nobody looked at if those of a decile were drawn by chance."
