"""Random choices that are the same on every machine and in every Python: built on `random.Random.random()` alone.

Python promises the sequence of `random()` for a seed; it does not promise that of `choice`, `shuffle` or `sample`, nor
the order of a set, nor `hash` of a string. It knows nothing of what is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from lightning_rm.digests import key_digest

T = TypeVar("T")


class Draws:
    """A stream of random choices, named by its key: `Draws(seed, "train", 17)`.

    Streams of different keys are independent, so a row depends neither on the rows before it nor on their number.

    Args:
        key: plain values (numbers, strings) with a stable `repr`.
    """

    def __init__(self, *key: object) -> None:
        self._random = random.Random(int(key_digest(*key), 16))

    def uniform(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability; one number is drawn whatever it is."""
        return self.uniform() < probability

    def below(self, bound: int) -> int:
        """Return an integer in [0, bound)."""
        return int(self.uniform() * bound)

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def weighted(self, weights: Mapping[T, int]) -> T:
        """Return one of the keys, each as often as its weight."""
        place = self.below(sum(weights.values()))
        for option, weight in weights.items():
            if place < weight:
                return option
            place -= weight
        raise ValueError("there is nothing to choose from: the weights are empty")

    def sample(self, options: Sequence[T], num: int) -> list[T]:
        """Draw `num` of the options in random order, none twice (the first `num` steps of a Fisher-Yates shuffle)."""
        pool = list(options)
        random, size = self._random.random, len(pool)  # as `below`, in the loop that data is made in
        for place in range(num):
            other = place + int(random() * (size - place))
            pool[place], pool[other] = pool[other], pool[place]
        return pool[:num]

    def shuffle(self, options: Sequence[T]) -> list[T]:
        """Return all of the options in random order."""
        return self.sample(options, len(options))
