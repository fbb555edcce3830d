"""`Share`: which part of an epoch a process reads, and how its losses are scaled to the mean over an optimizer step.

It knows ranks and the numbers of micro-steps; no pairs and no trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Span = Callable[[], tuple[int, int]]
"""Gives the next micro-step of an epoch and the one that it stops before."""


@dataclass(frozen=True)
class Share:
    """What of an epoch one process reads; by default all of it, in its own order.

    Args:
        rank: its place among those that read different pairs.
        world_size: their number.
        accumulate: micro-steps of an optimizer step.
        shuffle: whether each epoch has an order of its own.
        span: asked at each start of an iteration for where training stands in the epoch, and where it stops; None for
            all of it.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    shuffle: bool = True
    span: Span | None = None


def step_around(place: int, accumulate: int, stop: int) -> range:
    """Return the micro-steps of the optimizer step that a micro-step is of; an epoch's last one may be short of some.

        place 5 of steps of 4, stopping before 7  ->  4, 5, 6

    Args:
        place: of the micro-step, below `stop`.
        accumulate: micro-steps of an optimizer step.
        stop: the micro-step that training stops before.
    """
    start = place - place % accumulate
    return range(start, min(start + accumulate, stop))


def scale_of(num_pairs: int, in_step: int, world_size: int, accumulate: int) -> float:
    """Return what the mean loss of a rank's pairs in a micro-step is multiplied by.

    Lightning divides every loss by `accumulate`, in a step that is short of micro-steps too, and gradients are averaged
    over ranks: scaled so, each step takes the mean over its pairs.

    Args:
        num_pairs: that this rank reads in the micro-step.
        in_step: pairs of the whole optimizer step, over all ranks.
        world_size: the number of ranks.
        accumulate: micro-steps of an optimizer step.
    """
    return num_pairs * world_size * accumulate / in_step
