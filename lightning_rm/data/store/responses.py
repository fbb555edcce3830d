"""The pairs that k scored responses to a prompt make: a pure function of their scores, made when a file is read.

This file knows scores and places; tokens and texts are `store.pairs`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScoredPairs:
    """N pairs of the R rows of a file.

    Args:
        row: (N,) int64, ascending: the row of the file that each pair is of.
        sides: (N, 2) int64: which of the row's responses are chosen and rejected.
        scores: (2, N, A) of chosen and rejected by attribute, NaN where unknown.
        score: (2, N) the mean over the attributes that are known, by which responses are ordered; NaN for pairs that
            came as such.
        tied: (N,) bool, two responses of one score, or one response alone.
        single: (N,) bool, a response that is alone in its row and stands for a pair with itself.
        num_tied: rows that make no pair.
    """

    row: NDArray[np.int64]
    sides: NDArray[np.int64]
    scores: NDArray[np.float64]
    score: NDArray[np.float64]
    tied: NDArray[np.bool_]
    single: NDArray[np.bool_]
    num_tied: int


def scored_pairs(
    column: Any, num_responses: NDArray[np.int64], num_attributes: int, ties: Literal["drop", "keep"]
) -> ScoredPairs:
    """Return the pairs of every row: for a row without scores its two responses, else all of different scores.

    Scores 3, 1, 1 make the pairs (0, 1) and (0, 2), and (1, 2) where ties are kept. A response that is alone makes the
    pair (0, 0).

    Args:
        column: of R lists of k lists of scores, empty for pairs.
        num_responses: (R,) k of each row.
        num_attributes: A; a list of fewer scores has gaps at its end.
        ties: `drop`, or `keep` pairs of one score.
    """
    num_rows = len(num_responses)
    if num_attributes == 0:
        row, sides = np.arange(num_rows), np.broadcast_to(np.array([0, 1]), (num_rows, 2))
        unknown = np.broadcast_to(np.nan, (2, num_rows))
        no = np.broadcast_to(np.False_, num_rows)
        return ScoredPairs(row, sides, unknown[..., None], unknown, no, no, 0)
    rows, sides, scores = list[int](), list[tuple[int, int]](), list[NDArray[np.float64]]()
    num_tied = 0
    for number, given in enumerate(column.to_pylist()):
        table = np.full((max(num_responses[number], 2), num_attributes), np.nan)
        for place, values in enumerate(given):
            table[place, : len(values)] = values
        made = _pairs(_mean(table)[: len(given)], ties) if given else [(0, 1)]
        num_tied += not made
        rows += [number] * len(made)
        sides += made
        scores += [table[list(pair)] for pair in made]
    stacked = np.stack(scores, axis=1) if scores else np.empty((2, 0, num_attributes))
    mean = _mean(stacked)
    chosen_and_rejected = np.array(sides, np.int64).reshape(-1, 2)
    return ScoredPairs(
        np.array(rows, np.int64),
        chosen_and_rejected,
        stacked,
        mean,
        mean[0] == mean[1],
        chosen_and_rejected[:, 0] == chosen_and_rejected[:, 1],
        num_tied,
    )


def _pairs(score: NDArray[np.float64], ties: Literal["drop", "keep"]) -> list[tuple[int, int]]:
    """Return the pairs of k responses, the better one first."""
    if len(score) == 1:
        return [(0, 0)]
    both = [(i, j) if score[i] >= score[j] else (j, i) for i in range(len(score)) for j in range(i + 1, len(score))]
    return [pair for pair in both if ties == "keep" or score[pair[0]] > score[pair[1]]]


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the last axis of what is known; NaN where nothing is."""
    known = ~np.isnan(scores)
    with np.errstate(invalid="ignore"):
        return np.where(known, scores, 0.0).sum(-1) / known.sum(-1)
