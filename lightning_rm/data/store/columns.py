"""Columns of an Arrow file as arrays: lists of sequences read in place, numbers and votes copied out.

It knows chunks and offsets; not what the sequences or numbers mean.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightning_rm.strength import vote_shares

Number = TypeVar("Number", np.float64, np.int64)


class SequenceColumn:
    """Random access to a column of lists of sequences, by the offsets of its chunks: no Python object for each value.

    Attributes:
        num_responses: (R,) sequences of each row.
        first: (R,) the number of each row's first sequence, among all of the column.
        lengths: (S,) tokens of each sequence.
    """

    def __init__(self, column: Any) -> None:
        self.num_responses: NDArray[np.int64] = one_if_same(
            np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]).astype(np.int64)
        )
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
    return one_if_same(
        np.concatenate([vote_shares(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in column.chunks])
    )


def numbers_of(column: Any) -> NDArray[Any]:
    """Return a column of numbers as one array, copied out of the file unless all are the same: (N,)."""
    return one_if_same(np.concatenate([chunk.to_numpy() for chunk in column.chunks]))


def one_if_same(values: NDArray[Number]) -> NDArray[Number]:
    """Return an array as it is or, where all of its values are the same or all are NaN, as one number seen N times.

    Most columns of most data sets are such: every label is 1, no pair has a margin. A view of one number is read like
    any array, cannot be written to, and takes no memory at five million pairs.
    """
    if len(values) and ((values == values[0]).all() or np.isnan(values).all()):
        return np.broadcast_to(values[:1].copy(), values.shape)
    return values


def in_order_of_appearance(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (N,), a number for each different key, in the order in which they appear: 7, 5, 7, 9 is 0, 1, 0, 2."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]
