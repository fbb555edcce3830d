"""Which sequences share a forward: an order that suits the layout, cut by a budget of grid tokens. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_rm.data.beginnings import num_shared
from lightning_rm.tokens import LayoutName

Ids = tuple[int, ...]


def batches_of(
    sequences: Sequence[Ids],
    layout: LayoutName,
    batch_tokens: int,
    batch_size: int | None = None,
    steady_tokens: int | None = None,
) -> list[list[int]]:
    """Return the places of distinct sequences, batch by batch.

    A padded grid takes sequences from long to short, so that rows of a batch are alike in length. `shared_prefix` takes
    them in the order of their tokens: those that begin alike stand side by side, and a batch is charged what it has in
    common only once. `packed` takes them as they come. Of `[1, 2, 3]`, `[4]` and `[1, 2, 5]`, `shared_prefix` makes the
    order 0, 2, 1, which costs 3 + 1 + 1 tokens; what is too short to be shared, up to 7 tokens of a sequence, comes on
    top.

    Args:
        sequences: distinct token sequences.
        layout: how they will be laid out.
        batch_tokens: the most grid tokens of a batch; a longer sequence goes alone.
        batch_size: the most sequences of a batch; None for any number.
        steady_tokens: as the layout has it: longer sequences share nothing with others.
    """
    order = list(range(len(sequences)))

    def is_long(place: int) -> bool:
        return steady_tokens is not None and len(sequences[place]) > steady_tokens

    if layout == "padded":
        order.sort(key=lambda place: -len(sequences[place]))
    elif layout == "shared_prefix":
        order.sort(key=lambda place: (is_long(place), sequences[place]))
    batches: list[list[int]] = []
    num_tokens, widest = 0, 0
    for place in order:
        length = len(sequences[place])
        if layout == "padded":
            total = max(widest, length) * (len(batches[-1]) + 1 if batches else 1)
        else:
            before = batches[-1][-1] if batches else place
            shares = layout == "shared_prefix" and bool(batches) and is_long(before) is is_long(place)
            shared = num_shared(sequences[before], sequences[place]) if shares else 0
            total = num_tokens + length - shared
        if not batches or total > batch_tokens or len(batches[-1]) == batch_size:
            batches.append([])
            total, widest = length, 0
        batches[-1].append(place)
        num_tokens, widest = total, max(widest, length)
    return batches
