"""What repeats in a data set of tokenised pairs: the sequences and prompts that a layout computes once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_rm.data.batches.layouts import SHORTEST_SHARED
from lightning_rm.data.batches.orders import Rows
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.digests import short_key


def sequence_index(pairs: PairDataset) -> Rows:
    """Return (N, 2), one number for each distinct token sequence: pairs that share a response share its number."""
    numbers: dict[bytes, int] = {}
    index = [
        [numbers.setdefault(_key(sequence), len(numbers)) for sequence in pairs.sample(row).sequences]
        for row in range(len(pairs))
    ]
    return np.array(index, dtype=np.int64)


def shared_prompts(pairs: PairDataset) -> tuple[Rows, Rows]:
    """Return (N,), tokens of each pair's prompt that a grid of `shared_prefix` shares, and (N,), one number for each
    distinct prompt.

    A prompt of fewer than `SHORTEST_SHARED` tokens is not shared.
    """
    numbers: dict[bytes, int] = {}
    index = np.empty(len(pairs), dtype=np.int64)
    for row, length in enumerate(pairs.prompt_lengths.tolist()):
        prompt = pairs.sample(row).sequences[0][:length]
        index[row] = numbers.setdefault(_key(prompt), len(numbers))
    return np.where(pairs.prompt_lengths < SHORTEST_SHARED, 0, pairs.prompt_lengths), index


def _key(sequence: Sequence[int]) -> bytes:
    """Return the bytes that stand for a token sequence."""
    return short_key(np.asarray(sequence, dtype=np.int64).tobytes())
