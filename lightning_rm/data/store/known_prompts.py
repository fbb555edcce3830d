"""Which prompts of one data set stand in another, so that what is measured on them says little of new prompts."""

from __future__ import annotations

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import MAX_EXAMPLES

CHUNK = 10_000
"""Pairs whose prompts are compared at a time."""


def warn_of_known_prompts(pairs: PairDataset, trained: PairDataset) -> None:
    """Warn of pairs to measure on whose prompts are trained on too; see `known_prompts`."""
    known = known_prompts(pairs, trained)
    if len(known):
        examples = [*map(str, pairs.places(known[:MAX_EXAMPLES].tolist())), "..."][: len(known)]
        rank_zero_warn(
            f"{pairs.name}: {len(known):,} of {len(pairs):,} pairs have a prompt that is trained on too "
            f"({', '.join(examples)}): what is measured on them says little of new prompts"
        )


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
