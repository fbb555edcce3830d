"""Responses by themselves among pairs, where each stands for a pair with itself. It knows arrays of rewards alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stand_alone(chosen: NDArray[Any], rejected: NDArray[Any], label: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (P,) bool, True for a response by itself, which stands there as both of its pair, with the label 1/2.

    Args:
        chosen: (P,) rewards.
        rejected: (P,) rewards of the same pairs.
        label: (P,) probability that chosen is preferred.
    """
    return np.asarray((chosen == rejected) & (label == 0.5))
