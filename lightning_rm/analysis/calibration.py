"""Calibration of pairs by bin of confidence, for the reliability diagram. This file knows only arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Reliability(NamedTuple):
    """Calibration by bin of confidence, each field (num_bins,); an empty bin has no pairs and NaN elsewhere."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    num_pairs: NDArray[np.int64]

    @property
    def calibration_error(self) -> float:
        """The mean over pairs of |accuracy - confidence| of their bin: `PairMetrics`' `calibration_error`."""
        return float(np.nansum(self.num_pairs * np.abs(self.accuracy - self.confidence)) / self.num_pairs.sum())


def reliability(margins: NDArray[np.floating], labels: NDArray[np.floating], num_bins: int = 10) -> Reliability:
    """Return folded calibration of per-pair records, binned as `PairMetrics` does.

    Args:
        margins: (P,) reward of chosen minus reward of rejected.
        labels: (P,) probability that chosen is preferred.
        num_bins: equal bins of confidence on [1/2, 1].

    Returns:
        For each bin the mean confidence `sigmoid(|margin|)`, how often the preferred response is right, and the pairs.
    """
    margins, labels = np.asarray(margins, np.float64), np.asarray(labels, np.float64)
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = 0.5 + np.sign(margins) * (labels - 0.5)
    bins = np.clip(((confidence - 0.5) * 2 * num_bins).astype(np.int64), 0, num_bins - 1)
    num_pairs = np.bincount(bins, minlength=num_bins)
    divisor = np.where(num_pairs > 0, num_pairs, np.nan)
    return Reliability(
        confidence=np.bincount(bins, confidence, num_bins) / divisor,
        accuracy=np.bincount(bins, right, num_bins) / divisor,
        num_pairs=num_pairs,
    )
