"""Sources of sources: mixtures by weight, and splits by prompt. They know rows and never where those came from.

Whether a row is taken is decided from a hash of its name, so that it does not depend on the order of rows or on
how many there are: a data set that grows keeps its split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

from lightning_rm.counts import is_number
from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import BY_WEIGHT, BadRow, PairRow, Source
from lightning_rm.data.sources.resampling import unit_hash
from lightning_rm.digests import digest


class Mixture:
    """Several sources in one, one after the other.

    A weight of 1 takes every row of a source once, 0.5 takes each row with probability 1/2, 2.5 takes every row twice
    and half of them once more; repeats have `#2`, `#3` behind their id. A row whose subset is `all` gets the source's
    name as its subset. Bad rows pass once.

    Args:
        sources: name -> source.
        weights: name -> weight; 1 for a source that is not named.
        seed: decides which rows a fractional weight takes.

    Raises:
        ValueError: for no sources, for a weight of a source that does not exist, or one that is negative.
    """

    def __init__(
        self, sources: Mapping[str, Source], weights: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        self.sources = dict(sources)
        if not self.sources:
            raise ValueError("a mixture has one source at least; this one has none")
        given = _numbers(weights or {})
        if unknown := sorted(given.keys() - self.sources.keys()):
            raise ValueError(f"weights names {unknown[0]!r}; the sources are {', '.join(self.sources)}")
        self.weights = {name: given.get(name, 1.0) for name in self.sources}
        self.seed = seed

    @property
    def places(self) -> list[str]:
        """The places of its sources, one after the other."""
        return [place for source in self.sources.values() for place in places_of(source)]

    def fingerprint(self) -> str:
        """Return a digest of the sources' fingerprints, their names, weights and the seed."""
        parts = [[name, source.fingerprint(), self.weights[name]] for name, source in self.sources.items()]
        return digest(["mixture", parts, self.seed], 64)

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows of every source in order, each as often as its weight says."""
        for name, source in self.sources.items():
            yield from self._weighted(name, source)

    def _weighted(self, name: str, source: Source) -> Iterator[PairRow | BadRow]:
        every, share = divmod(self.weights[name], 1)
        times_seen = Counter[str]()  # so that each row of one id has a draw of its own
        for row in source:
            if isinstance(row, BadRow):
                yield row
                continue
            times_seen[row.id] += 1
            drawn = unit_hash(self.seed, name, row.id, times_seen[row.id]) < share
            num_copies = int(every) + drawn
            if not num_copies:
                yield BadRow(f"{name}, {row.place}", BY_WEIGHT, f"the weight of {name} is {self.weights[name]:g}")
            named = replace(row, subset=name) if row.subset == "all" else row
            for copy in range(num_copies):
                yield replace(named, id=f"{row.id}#{copy + 1}") if copy else named


def _numbers(weights: object) -> dict[str, float]:
    """Return weights by name as what they are, for a configuration may hold anything."""
    if not isinstance(weights, Mapping):
        raise ValueError(f"weights are {weights!r}; give {{name: number}}")
    for name, weight in cast(Mapping[str, object], weights).items():
        if not is_number(weight) or weight < 0:
            raise ValueError(f"the weight of {name!r} is {weight!r}; it must be a number, 0 or more")
    return {str(name): float(weight) for name, weight in cast(Mapping[object, float], weights).items()}
