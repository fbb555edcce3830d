"""Whether two trained models differ on the very same test pairs: a bootstrap over prompts, and no other seeds.

A pair of runs has one difference and no spread, but its thousand test pairs have one. What it tells is of these models:
that the next seed's differ as well is for runs of several seeds to say, by `analysis.paired`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_rm.analysis.evidence import Records
from lightning_rm.analysis.paired import Difference
from lightning_rm.evaluation.credit import Credit, pair_credit
from lightning_rm.evaluation.statistics import bootstrap_means, interval

NUM_DRAWS = 2000


class PairDifference(NamedTuple):
    """A difference in accuracy, with the interval that draws of test prompts give it; none where all draws are alike.

    Args:
        accuracy: its `num` test pairs are those that all of the runs have, by row, prompt and label.
        num_prompts: that they are of; all pairs of a prompt are drawn together.
        num_left_out: pairs that one of two runs has and the other has not.
    """

    accuracy: Difference
    num_prompts: int
    num_left_out: int


def pair_difference(
    runs: Sequence[tuple[Records, Records]], num_draws: int = NUM_DRAWS, seed: int = 0
) -> PairDifference | None:
    """Return the accuracy of a method's models less that of a reference's, over the test pairs that both were measured
    on.

        the models are right on pairs 1 1 0 1, the reference's on 1 0 0 0  ->  mean 0.5

    Args:
        runs: the rewards of a method's run and those of the reference's of the same block; of a pair that several
            blocks have, such as seeds on one test set, the mean over them counts.
        num_draws: of the bootstrap.
        seed: of its draws.

    Returns:
        None where no pair with a side is shared.
    """
    found: dict[tuple[int, str, float], list[float]] = {}
    left_out = 0
    for records, reference in runs:
        there, other = _right(records), _right(reference)
        left_out += len(there.keys() ^ other.keys())
        for key in there.keys() & other.keys():
            found.setdefault(key, []).append(there[key] - other[key])
    if not found:
        return None
    keys = sorted(found)
    value = np.array([np.mean(found[key]) for key in keys], np.float64)
    names, cluster = np.unique([prompt for _, prompt, _ in keys], return_inverse=True)
    credit = {"difference": Credit(np.arange(len(keys)), value)}
    drawn = interval(bootstrap_means(credit, cluster, num_draws, seed)["difference"])
    accuracy = Difference(float(value.mean()), drawn.low, drawn.high, math.nan, math.nan, len(keys))
    return PairDifference(accuracy, len(names), left_out)


def _right(records: Records) -> dict[tuple[int, str, float], float]:
    """Return (row, prompt, label) -> 1 where the rewards prefer what the label prefers, 1/2 for a tie; pairs whose
    label takes no side are left out.
    """
    margin: NDArray[np.float64] = records.margin * np.sign(records.label - 0.5)
    keys = zip(records.row.tolist(), records.prompt, records.label.tolist(), strict=True)
    return {key: right for key, right in zip(keys, pair_credit(margin, "half").tolist(), strict=True) if key[2] != 0.5}
