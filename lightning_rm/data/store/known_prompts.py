"""Which prompts of one data set stand in another, so that what is measured on them says little of new prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_rm.data.store.pairs import PairDataset

CHUNK = 10_000
"""Pairs whose prompts are compared at a time."""


def known_prompts(pairs: PairDataset, trained: PairDataset) -> NDArray[np.int64]:
    """Return the pairs whose prompt stands in the other data set too, under the same name and in the same words.

    Names alone do not tell: files that number their prompts from 0 have all of them in common.

    Args:
        pairs: a set that is measured on.
        trained: the set that is trained on.
    """
    names, first = np.unique(trained.prompt_keys, return_index=True)
    keys = pairs.prompt_keys
    place = np.searchsorted(names, keys).clip(max=len(names) - 1)
    of_one_name = np.flatnonzero(names[place] == keys)
    found = [of_one_name[:0]]
    for start in range(0, len(of_one_name), CHUNK):
        rows = of_one_name[start : start + CHUNK]
        texts = zip(pairs.prompt_texts(rows), trained.prompt_texts(first[place[rows]]), strict=True)
        found.append(rows[[ours == theirs for ours, theirs in texts]])
    return np.concatenate(found)
