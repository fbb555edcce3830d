"""Which groups of responses go with which micro-step of a run: an endless shuffled stream, read at any place.

The stream has epochs of its own, independent of those of the pairs, and no state: what a run reads after it was resumed
follows from the number of the micro-step. This file knows numbers: no tokens and no trainer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

STREAM = 0x9E37
"""Keeps the orders of groups apart from those of pairs, which are drawn from (seed, epoch) too."""


class GroupStream:
    """An endless stream of N groups, new in order in each of its epochs, dealt to micro-steps and ranks.

    Two ranks with batches of two read 10 groups so: in micro-step 0, rank 0 the places 0 and 1, rank 1 the places 2
    and 3; in micro-step 1, rank 0 the places 4 and 5, and so on. Place 10 is the first of the second epoch.

    Args:
        num_groups: N.
        batch_groups: groups that a rank reads in a micro-step; more than N repeat some.
        rank: which rank's groups to give.
        world_size: the number of ranks.
        seed: of the order.

    Raises:
        ValueError: if there are no groups, or none is to be read.
    """

    def __init__(self, num_groups: int, batch_groups: int, rank: int = 0, world_size: int = 1, seed: int = 0) -> None:
        if num_groups < 1:
            raise ValueError("there are no groups of responses to read")
        if batch_groups < 1:
            raise ValueError(f"batch_groups={batch_groups}; it must be at least 1")
        self.num_groups = num_groups
        self.batch_groups = batch_groups
        self.rank = rank
        self.world_size = world_size
        self.seed = seed

    def rows(self, micro_step: int) -> tuple[int, ...]:
        """Return the `batch_groups` rows that this rank reads in a micro-step, which is counted from the start of the
        run.
        """
        first = (micro_step * self.world_size + self.rank) * self.batch_groups
        places = (divmod(place, self.num_groups) for place in range(first, first + self.batch_groups))
        return tuple(int(_order(self.num_groups, self.seed, epoch)[within]) for epoch, within in places)


@lru_cache(maxsize=4)
def _order(num_groups: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the rows in the order of one of the stream's epochs."""
    return np.random.Generator(np.random.PCG64([seed, STREAM, epoch])).permutation(num_groups)
