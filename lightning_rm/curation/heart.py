"""Whether voters have memorised labels: how often they agree with labels they were trained on, and with new ones.

It knows arrays alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_rm.metrics.intervals import normal_reach

TOO_FAR = 0.15
"""The gap from which on votes on seen pairs tell of memory rather than of the pairs. On the made world voters whose gap
is .03 find wrong labels better than cross-fitted ones, and those whose gap is .42 far worse (docs/results/strength.md);
at which gap between the two this turns has not been measured."""


class ByHeart(NamedTuple):
    """How often the vote has the sign of the label.

    Args:
        seen: on pairs that the voters were trained on; NaN without any, as is `new`.
        new: on pairs that they were not trained on.
        low: the least gap between the two within 95 %; NaN where one of them is.
        high: the widest.
    """

    seen: float
    new: float
    low: float
    high: float

    @property
    def is_due(self) -> bool:
        """Whether voters have to be cross-fitted: the gap is too wide, and not by chance."""
        return self.seen - self.new > TOO_FAR and self.low > 0

    def advice(self) -> str:
        """Return what to do, in one sentence."""
        if math.isnan(self.seen):
            return "No voter was trained on a pair that it votes on."
        if math.isnan(self.new):
            return (
                f"Voters agree with {self.seen:.1%} of the labels, and were trained on all of them: whether they know "
                "them by heart cannot be told. Hold some out (held_out=0.1), or cross-fit (fit=cross_fitted)."
            )
        told = f"Voters agree with {self.seen:.1%} of the labels that they were trained on, {self.new:.1%} of new ones"
        if self.is_due:
            return (
                f"{told}: they know labels by heart. Cross-fitted voters are due (fit=cross_fitted), or fewer epochs."
            )
        if self.high > TOO_FAR:
            return f"{told}: too few of these to tell whether they know labels by heart."
        return f"{told}: they do not know labels by heart, and cross-fitting is not due."


def by_heart(mean: NDArray[np.float64], is_new: NDArray[np.bool_]) -> ByHeart:
    """Compare votes on seen and on new pairs.

    The interval of the gap is the normal one after a pair that is agreed with and one that is not are added to either
    kind (Agresti and Caffo 2000, American Statistician 54): as they are, three new pairs, all agreed with, have one of
    no width.

    Args:
        mean: (N,) mean of the votes; NaN for a pair without.
        is_new: (N,) whether the voters were not trained on it.
    """
    known = ~np.isnan(mean)
    agrees = [mean[known & mask] > 0 for mask in (~is_new, is_new)]
    if not all(map(len, agrees)):
        seen, new = (float(one.mean()) if len(one) else math.nan for one in agrees)
        return ByHeart(seen, new, math.nan, math.nan)
    seen, new = (float(one.mean()) for one in agrees)
    shares = [(int(one.sum()) + 1) / (len(one) + 2) for one in agrees]
    variance = sum(share * (1 - share) / (len(one) + 2) for share, one in zip(shares, agrees, strict=True))
    gap, reach = shares[0] - shares[1], normal_reach() * math.sqrt(variance)
    return ByHeart(seen, new, gap - reach, gap + reach)
