"""What a benchmark is: where its rows are, how one is read, what a reward is worth, how the parts are put together.

A benchmark's file has a reader of single rows and pure functions of rewards, and no loop over models. Sections are
functions of column means alone, so a bootstrap over prompts gives every section its interval in the same way, as exact
as the score. This file knows no single benchmark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_rm.data.formats.fields import Raw
from lightning_rm.data.rows import Message
from lightning_rm.digests import digest
from lightning_rm.evaluation.benchmarks.reading import HubPart, read_records
from lightning_rm.evaluation.credit import Credit, Rule, by_subset, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items, Turns

Means = Mapping[str, Floats]
"""Column -> its mean, a scalar or (B,) over draws."""

OVERALL = "overall"
"""The section that is the benchmark's one number."""

MEAN = "mean"
"""Of the categories, in a summary."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name: as a user calls it: `rewardbench2`.
        title: as its paper calls it.
        aggregate: what `overall` is, in words: micro and macro means are not to be compared.
        hub: where its rows are on the hub; empty for a benchmark that is on no hub.
        read_row: from a row, and the part or file it stands in, to an item; raises `RowError` for a bad one.
        columns: from items, (N, K) rewards and a rule for ties to the credits that sections are made of.
        combine: from means of columns to sections. A section without its columns is left out. `A/b` is a detail of
            section A, which tables leave to the files.
        categories: the sections that mean, minimum and low quantile are taken over.
        expected: subset -> how many rows the whole benchmark has of it, None where that is not known; what is missing
            is reported. Of `fra_Latn:hep-cpp` the first part counts.
        more: figures that are not made of means: from items and rewards to numbers by name, without intervals.
        check: raises ValueError for rows that are right one by one and not together.
    """

    name: str
    title: str
    aggregate: str
    hub: tuple[HubPart, ...]
    read_row: Callable[[str, Raw, str], Item]
    columns: Callable[[Items, Floats, Rule], dict[str, Credit]]
    combine: Callable[[Means], dict[str, Floats]]
    categories: tuple[str, ...]
    expected: Mapping[str, int | None] = field(default_factory=dict[str, "int | None"])
    more: Callable[[Items, Floats], dict[str, float]] | None = None
    check: Callable[[Items], None] | None = None

    def read(self, path: str | Path | Sequence[str | Path] | None = None) -> Items:
        """Return all items, from files or a folder in the benchmark's own form, or from the hub.

        Args:
            path: a file, a folder, a glob or a list of them; None for the hub.

        Raises:
            ValueError: for a row that is not of this benchmark, one that stands there twice, or nothing at all.
        """
        items = Items(read_records(self.name, path, self.hub, self.read_row))
        if self.check is not None:
            self.check(items)
        return items

    def missing(self, items: Items) -> list[str]:
        """Return what the items lack of the whole benchmark, in words."""
        found = Counter(name.partition(":")[0] for name in items.subset.tolist())
        lacking = [name for name in self.expected if name not in found]
        partial = [
            f"{name}: {found[name]:,} of {number:,} rows"
            for name, number in self.expected.items()
            if name in found and number is not None and found[name] != number
        ]
        return [*([f"missing: {', '.join(lacking)}"] if lacking else []), *partial]


def user(text: str) -> Message:
    """Return a user's turn."""
    return Message(role="user", content=text)


def assistant(text: str) -> Turns:
    """Return a response of one turn."""
    return (Message(role="assistant", content=text),)


def cluster_of(*texts: object) -> str:
    """Return a name for what all items of one prompt share."""
    return digest(texts)


def pair_columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return one column per subset: the credits of its items, each of which is one comparison."""
    return by_subset(items, pair_credit(items.comparisons.margins(rewards), rule))


def mean_of(means: Means, names: Sequence[str]) -> Floats | None:
    """Return the plain mean of some columns or sections, None if one of them is missing."""
    if not all(name in means for name in names):
        return None
    return np.mean([means[name] for name in names], axis=0)


def with_overall(sections: dict[str, Floats], names: Sequence[str]) -> dict[str, Floats]:
    """Add the plain mean of some sections as `overall`, left out if one of them is missing."""
    overall = mean_of(sections, names)
    return sections if overall is None else {**sections, OVERALL: overall}
