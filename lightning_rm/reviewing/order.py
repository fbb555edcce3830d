"""In which order people look at pairs: the weakest, the most disputed, the strongest for control, a sample of all.

Conclusions about pairs that nobody has looked at need random draws: all but the disputed pairs are drawn at random
within a decile, and `Order.fair_from` says from which place on a pair counts as such a draw. It knows only arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Ordering = Literal["worth", "weakest", "disputed", "strongest", "file"]
Reason = Literal["weakest", "disputed", "strongest", "sample"]

REASONS: tuple[Reason, Reason, Reason, Reason] = get_args(Reason)

NUM_DECILES = 10

WEAKEST, DISPUTED, STRONGEST, SAMPLE = REASONS
CYCLE = (WEAKEST, WEAKEST, WEAKEST, WEAKEST, DISPUTED, DISPUTED, STRONGEST, SAMPLE, SAMPLE, SAMPLE)
"""Why each of ten pairs in a row is shown: of fifty pairs, twenty are from the weakest decile that is left."""


class Order(NamedTuple):
    """An order of N pairs.

    `row` (N,) is which pair stands at a place. `reason` (N,) is why the pair at a place stands there, as an index into
    `REASONS`. `fair_from` (N,) is by pair: once all places before this one are reviewed, the pair is one of those that
    were drawn by chance from its decile. It is N where it never is.
    """

    row: Ints
    reason: Ints
    fair_from: Ints


def review_order(mean: Floats, std: Floats, ordering: Ordering = "worth", seed: int = 0) -> Order:
    """Put the pairs in the order in which they are worth a look.

    Args:
        mean: (N,) strength.
        std: (N,) standard deviation of the votes.
        ordering: `worth` is made of ten at a time, see `CYCLE`: pairs of the lowest decile by chance, then those of the
            next; the most disputed first (|mean| / std, a tie by |mean|); pairs of the highest decile by chance; and
            one of every decile in turn by chance. `weakest`, `disputed` and `strongest` sort strictly, `file` leaves
            the order of the file: what they show first is not a fair sample of anything.
        seed: of what is by chance.

    Raises:
        ValueError: for another ordering.
    """
    if ordering not in get_args(Ordering):
        raise ValueError(f"order={ordering!r}: there are {', '.join(get_args(Ordering))}")
    num_pairs = len(mean)
    if ordering != "worth":
        rows = {
            "weakest": np.argsort(mean, kind="stable"),
            "disputed": by_dispute(mean, std),
            "strongest": np.argsort(-mean, kind="stable"),
            "file": np.arange(num_pairs),
        }[ordering]
        reason = REASONS.index("sample" if ordering == "file" else ordering)
        return Order(rows.astype(np.int64), np.full(num_pairs, reason), np.full(num_pairs, num_pairs))
    return _by_worth(mean, std, np.random.default_rng(seed))


def deciles(mean: Floats) -> Ints:
    """Return (N,), the decile of each pair by strength, 0 the weakest; equal strengths rank as they stand."""
    decile = np.empty(len(mean), np.int64)
    decile[np.argsort(mean, kind="stable")] = np.arange(len(mean)) * NUM_DECILES // max(len(mean), 1)
    return decile


def by_dispute(mean: Floats, std: Floats) -> Ints:
    """Return (N,), the pairs from the one that the voters dispute most; where they are of one mind (std 0), by
    |mean|.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((std == 0) & (mean == 0), 0.0, np.abs(mean) / std)
    return np.lexsort((np.abs(mean), ratio))


def _by_worth(mean: Floats, std: Floats, rng: np.random.Generator) -> Order:
    num_pairs = len(mean)
    decile = deciles(mean)
    chance = rng.random(num_pairs)
    turn = np.empty(num_pairs, np.int64)  # a pair's place among those of its decile, by chance
    for one in range(NUM_DECILES):
        [inside] = np.nonzero(decile == one)
        turn[inside[np.argsort(chance[inside], kind="stable")]] = np.arange(len(inside))
    queues: dict[Reason, Iterator[int]] = {
        "weakest": iter(np.lexsort((turn, decile)).tolist()),
        "disputed": iter(by_dispute(mean, std).tolist()),
        "strongest": iter(np.lexsort((turn, -decile)).tolist()),
        "sample": iter(np.lexsort((rng.random(num_pairs), turn)).tolist()),
    }
    rows, reasons = np.empty(num_pairs, np.int64), np.empty(num_pairs, np.int64)
    fair_from = np.full(num_pairs, num_pairs)
    is_placed = np.zeros(num_pairs, bool)
    for start in range(0, num_pairs, len(CYCLE)):
        places = start + rng.permutation(min(len(CYCLE), num_pairs - start))
        for reason, place in zip(CYCLE, places, strict=False):
            by_chance = reason != "disputed"
            for row in queues[reason]:
                if by_chance:  # one that stands here as disputed is drawn all the same: it counts from here on
                    fair_from[row] = min(fair_from[row], place + 1)
                if not is_placed[row]:
                    rows[place], reasons[place], is_placed[row] = row, REASONS.index(reason), True
                    break
    return Order(rows, reasons, fair_from)
