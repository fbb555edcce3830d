"""Columns of an Arrow file as arrays: lists of sequences read in place, numbers and votes copied out.

It knows chunks and offsets; not what the sequences or numbers mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_rm.strength import vote_shares


class SequenceColumn:
    """Random access to a column of lists of sequences, by the offsets of its chunks: no Python object for each value.

    Attributes:
        num_responses: (R,) sequences of each row.
        first: (R,) the number of each row's first sequence, among all of the column.
        lengths: (S,) tokens of each sequence.
    """

    def __init__(self, column: Any) -> None:
        self.num_responses: NDArray[np.int64] = np.concatenate(
            [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
        ).astype(np.int64)
        self.first: NDArray[np.int64] = np.cumsum(self.num_responses) - self.num_responses
        sequences = [chunk.values for chunk in column.chunks]
        offsets: list[NDArray[np.int32]] = [chunk.offsets.to_numpy() for chunk in sequences]
        self._offsets = offsets
        self._values: list[NDArray[np.int32]] = [chunk.values.to_numpy() for chunk in sequences]
        self._ends: NDArray[np.int64] = np.cumsum([len(chunk) - 1 for chunk in offsets])
        self.lengths: NDArray[np.int64] = np.concatenate([np.diff(chunk) for chunk in offsets]).astype(np.int64)

    def get(self, i: int) -> list[int]:
        """Return sequence `i` of the column."""
        chunk = int(np.searchsorted(self._ends, i, side="right"))
        offsets = self._offsets[chunk]
        local = i - int(self._ends[chunk]) + len(offsets) - 1
        return self._values[chunk][offsets[local] : offsets[local + 1]].tolist()


def shares_of_votes(column: Any) -> NDArray[np.float64]:
    """Return (N,), the share of votes for chosen of each pair."""
    return np.concatenate([vote_shares(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in column.chunks])


def numbers_of(column: Any) -> NDArray[Any]:
    """Return a column of numbers as one array, copied out of the file: (N,)."""
    return np.array(column.to_numpy())
