"""The policy that a reward model makes by itself: it gives the best of n responses, by the model's own rewards.

This is the shift of iterated RLHF without training a policy: responses drift to where the model's rewards are high,
rightly or wrongly, and the model can no longer tell them apart. Gold rewards are carried along where they are known.
This file knows groups and arrays of rewards; no model and no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from lightning_rm.data.formats.messages import is_blank
from lightning_rm.data.rows import TIE, BadRow, GroupRow, Message, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.evaluation.items import Floats


def best_of_groups(rows: Sequence[GroupRow], rewards: Floats, n: int, k: int) -> list[GroupRow]:
    """Return k responses of the best-of-n policy to each prompt, from N >= k n samples of the policy before it.

    Response b is the best of samples b n to (b + 1) n - 1, so that no sample is chosen from twice.

    Args:
        rows: P groups of N samples.
        rewards: (P, N), by which the best is chosen; the first of equal ones.
        n: how many samples each is the best of.
        k: responses a group.

    Returns:
        P groups with the ids of `rows` and the gold rewards of what was chosen.

    Raises:
        ValueError: if there are fewer samples than k n.
    """
    num_samples = rewards.shape[1]
    if k * n > num_samples:
        raise ValueError(
            f"the best of {n}, {k} times over, takes {k * n} samples of each prompt, and there are {num_samples}; "
            "sample more of them, or ask for fewer"
        )
    places = rewards[:, : k * n].reshape(len(rows), k, n).argmax(axis=2) + n * np.arange(k)
    return [row.only(chosen.tolist()) for row, chosen in zip(rows, places, strict=True)]


def labelled_pairs(rows: Iterable[GroupRow], annotator: Annotator, seed: int = 0) -> Iterator[PairRow | BadRow]:
    """Yield a pair from each group, its first two responses with words and of different gold rewards, labelled by the
    made world's annotator.

    Args:
        rows: groups whose gold rewards are known.
        annotator: who labels, and how.
        seed: of the annotator's errors; a group's label depends on it and on the group's id alone.

    Yields:
        A pair, or a `BadRow` of a group whose responses with words all have equal gold rewards.

    Raises:
        ValueError: if gold rewards are not known.
    """
    for row in rows:
        if not row.gold:
            raise ValueError(f"{row.place} has no gold rewards, which an annotator labels by")
        compared = ((a, b) for a, b in combinations(spoken(row), 2) if row.gold[a] != row.gold[b])
        if (pair := next(compared, None)) is None:
            yield BadRow(row.place, TIE, "all responses with words have equal gold rewards")
            continue
        first, second = pair
        margin = row.gold[first] - row.gold[second]
        num_more_words = num_words(row.responses[first]) - num_words(row.responses[second])
        if not annotator.prefers_first(margin, num_more_words, Draws("policy label", seed, row.id)):
            first, second, margin = second, first, -margin
        yield replace(row.pair(first, second), gold_margin=round(margin, 6), clean=margin > 0)


def spoken(row: GroupRow) -> list[int]:
    """Return the places of the responses that say something, which a pair to train on has to."""
    return [place for place, turns in enumerate(row.responses) if not any(map(is_blank, turns))]


def num_words(turns: Sequence[Message]) -> int:
    """Say how many words a response has."""
    return sum(len(turn["content"].split()) for turn in turns)
