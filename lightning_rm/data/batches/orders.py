"""Orders of pairs that make good batches, and cutting them into batches: pure functions of index arrays.

Rows are row numbers of a data set of N pairs. Nothing here knows ranks, epochs or tokens themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_rm.data.batches.layouts import SHORTEST_SHARED
from lightning_rm.tokens import LayoutName

Order = Literal["random", "length", "prompt", "strongest_first", "weakest_first"]
Rows = NDArray[np.int64]
CURRICULA: dict[Order, float] = {"strongest_first": -1.0, "weakest_first": 1.0}
"""Orders by strength, each with the sign that sorts by it."""

BLOCK = 8
"""Responses of a block in order `prompt`; the 64 pairs between two blocks need 16 sequences."""

GRID_TOKENS: dict[LayoutName, Callable[[Collection[int]], int]] = {
    "padded": lambda lengths: len(lengths) * max(lengths),
    "packed": sum,
    "shared_prefix": sum,
}
"""Tokens of the grid that holds parts (`grid_parts`) of these lengths, each different part once."""


def by_length(rows: Rows, tokens: Rows) -> Rows:
    """Return rows from long to short; rows of one length stay as they came.

    Args:
        rows: (P,) row numbers.
        tokens: (N,) what each pair of the data set is sorted by.
    """
    return rows[np.argsort(-tokens[rows], kind="stable")]


def by_strength(rows: Rows, strength: NDArray[np.float64], order: Order) -> Rows:
    """Return rows by strength, those of one strength as they came; pairs without strength come last.

    Args:
        rows: (P,) row numbers.
        strength: (N,) mean of the votes, NaN where unknown.
        order: `strongest_first` or `weakest_first`.
    """
    return rows[np.argsort(CURRICULA[order] * strength[rows], kind="stable")]


def by_prompt(rows: Rows, prompt_index: Rows, sequence_index: Rows, generator: np.random.Generator) -> Rows:
    """Return rows by prompt, and within a prompt by the blocks that their two responses are drawn into, so that
    neighbours share responses.

    With responses a b | c d in blocks of two, the pairs come as ab, then ac ad bc bd as `rows` has them, then cd.

    Args:
        rows: (P,) row numbers.
        prompt_index: (N,) one number for each prompt.
        sequence_index: (N, 2) one number for each distinct response.
        generator: draws the order of the prompts, and that of the responses of each.
    """
    num_responses = int(sequence_index.max()) + 1
    prompt_of = np.empty(num_responses, dtype=np.int64)
    prompt_of[sequence_index] = prompt_index[:, None]
    drawn = np.lexsort((generator.permutation(num_responses), prompt_of))
    place = np.arange(num_responses) - np.searchsorted(prompt_of[drawn], prompt_of[drawn])
    block = np.empty(num_responses, dtype=np.int64)
    block[drawn] = place // BLOCK
    first, second = np.sort(block[sequence_index[rows]], axis=1).T
    prompt = generator.permutation(int(prompt_index.max()) + 1)[prompt_index[rows]]
    return rows[np.lexsort((second, first, prompt))]


def cut_by_pairs(rows: Rows, num_pairs: int) -> list[Rows]:
    """Cut an order into batches of num_pairs neighbours; the last one may be smaller."""
    return [rows[start : start + num_pairs] for start in range(0, len(rows), num_pairs)]


def grid_parts(
    lengths: Rows,
    sequence_index: Rows,
    prompts: tuple[Rows, Rows] | None,
    steady_tokens: int | None,
) -> tuple[Rows, Rows]:
    """Return what each pair puts on the grid: its two sequences, or, where a prompt is shared, its prompt and two
    responses.

    Args:
        lengths: (N, k) tokens of each sequence, 0 where a row has fewer than k.
        sequence_index: (N, k) one number for each distinct sequence.
        prompts: (N,) tokens of a prompt that are shared and (N,) one number for each distinct prompt.
        steady_tokens: as the layout has it: a prompt stands once for longer sequences, and once for the others.

    Returns:
        (N, m) tokens of each part, and (N, m) a number for each different part. For a prompt they are the most that it
        may take: up to `SHORTEST_SHARED` less one are left unshared. What responses have in common beyond the prompt,
        or prompts with one another, is counted each time: the grid may be smaller.
    """
    if prompts is None:
        return lengths, sequence_index
    tokens, number = (part[:, None] for part in prompts)
    whole = np.where(tokens > 0, tokens + SHORTEST_SHARED - 1, 0)
    is_long = lengths > (lengths.max() if steady_tokens is None else steady_tokens)
    kinds = [(kind & (lengths > 0)).any(axis=1, keepdims=True) for kind in (~is_long, is_long)]
    parts = np.concatenate([*(whole * kind for kind in kinds), np.where(lengths > 0, lengths - tokens, 0)], axis=1)
    short = number + int(sequence_index.max()) + 1
    return parts, np.concatenate([short, short + int(number.max()) + 1, sequence_index], axis=1)


def cut_by_tokens(rows: Rows, num_tokens: int, token_cost: LayoutName, parts: Rows, part_index: Rows) -> list[Rows]:
    """Cut an order into batches of as many neighbours as a budget of grid tokens allows; a part that stands twice
    counts once, and one without tokens, which is no sequence, not at all.

    Args:
        rows: (P,) row numbers.
        num_tokens: the most tokens of a batch's grid; every pair alone is within it.
        token_cost: how the grid is laid.
        parts: (N, m) tokens of each part of a pair.
        part_index: (N, m) one number for each different part.
    """

    def edges() -> Iterator[int]:
        batch: dict[int, int] = {}
        for place, row in enumerate(rows.tolist()):
            found = zip(part_index[row].tolist(), parts[row].tolist(), strict=True)
            pair = {part: length for part, length in found if length}
            if GRID_TOKENS[token_cost]((batch | pair).values()) > num_tokens:
                yield place
                batch = {}
            batch |= pair

    return [batch for batch in np.split(rows, [*edges()]) if len(batch)]


def spread(batches: list[Rows], num_batches: int) -> list[Rows]:
    """Halve the largest batch until there are enough: `[4, 2]` pairs become `[2, 2, 2]`, and `[1]` becomes `[1, 0]`."""
    batches = list(batches)
    while len(batches) < num_batches:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        middle = (len(batches[largest]) + 1) // 2
        batches[largest : largest + 1] = [batches[largest][:middle], batches[largest][middle:]]
    return batches
