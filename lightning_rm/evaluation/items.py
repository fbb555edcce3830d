"""Items: what a benchmark asks. A prompt, its responses, and what is known of each response.

All benchmarks are read as items, and a model is asked for one reward per response, so that scoring, intervals, controls
and diagnostics are written once. This file knows arrays and rows in words; no model, no tokenizer, no benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_rm.data.rows import Message

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One question: a prompt and k responses.

    Args:
        id: names the item in its benchmark.
        prompt: the conversation up to the responses, oldest turn first.
        responses: the turns of each of the k responses, usually one assistant message.
        gold: k numbers, how good each response is: 1 for a right one and 0 for a wrong one; the two of a preference
            pair are the probability that each is preferred.
        subset: the part of the benchmark that the item belongs to.
        cluster: items that share it are not independent (one prompt): intervals draw them together.
        origin: the place it was read at, in words a user can open: `pairs.jsonl:17`.
        pairs: which responses are compared, as (better, worse) places; empty for all that differ in `gold`.
        facts: what the benchmark's own rule reads besides.
        tools: tool definitions handed to the chat template.
        chat_template_kwargs: further arguments handed to the chat template.
    """

    id: str
    prompt: Turns
    responses: tuple[Turns, ...]
    gold: tuple[float, ...]
    subset: str = "all"
    cluster: str = ""
    origin: str = ""
    pairs: tuple[tuple[int, int], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tools: tuple[Mapping[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def compared(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of responses that are compared, the better one first."""
        if self.pairs:
            yield from self.pairs
            return
        for better, high in enumerate(self.gold):
            yield from ((better, worse) for worse, low in enumerate(self.gold) if high > low)


@dataclass(frozen=True)
class Comparisons:
    """Pairs of responses of items, one a row; C of them.

    Args:
        item: (C,) the item's number.
        better: (C,) the place of the response that is right or preferred.
        worse: (C,) the place of the other.
        label: (C,) the probability that `better` is preferred; 1 in a benchmark.
    """

    item: Ints
    better: Ints
    worse: Ints
    label: Floats

    def margins(self, rewards: Floats) -> Floats:
        """Return (C,), reward of the better response minus that of the worse, from (N, K) rewards."""
        return rewards[self.item, self.better] - rewards[self.item, self.worse]


class Items(Sequence[Item]):
    """N items with their arrays; K is the most responses of any of them, and shorter ones are filled up with NaN."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return Items(self._items[index]) if isinstance(index, slice) else self._items[index]

    def take(self, numbers: Iterable[int]) -> Items:
        """Return some of the items, in the order given."""
        return Items(self._items[int(number)] for number in numbers)

    @cached_property
    def gold(self) -> Floats:
        """(N, K), NaN where there is no response."""
        return self.grid(item.gold for item in self._items)

    @cached_property
    def length(self) -> Floats:
        """(N, K) characters of each response, its turns added up."""
        return self.grid(
            [sum(len(turn["content"]) for turn in response) for response in item.responses] for item in self._items
        )

    @cached_property
    def subset(self) -> NDArray[np.str_]:
        """(N,) names."""
        return np.array([item.subset for item in self._items], dtype=np.str_)

    @cached_property
    def rows_of(self) -> dict[str, Ints]:
        """The numbers of the items of each subset, subsets in order of name."""
        names, place = np.unique(self.subset, return_inverse=True)
        order = np.argsort(place, kind="stable")
        ends = np.cumsum(np.bincount(place))[:-1] if len(names) else []
        return dict(zip(names.tolist(), np.split(order, ends), strict=True))

    @cached_property
    def cluster(self) -> Ints:
        """(N,) numbers, the same for items that are not independent."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(item.cluster or item.id, len(numbers)) for item in self._items], np.int64)

    @cached_property
    def conversation(self) -> Ints:
        """(N, K) numbers, the same for the same conversation; -1 where there is no response."""
        numbers: dict[str, int] = {}
        found = np.full(self.gold.shape, -1, np.int64)
        for number, item in enumerate(self._items):
            shared = json.dumps([item.prompt, item.tools, item.chat_template_kwargs], ensure_ascii=False)
            for place, response in enumerate(item.responses):
                key = f"{shared}\0{json.dumps(response, ensure_ascii=False)}"
                found[number, place] = numbers.setdefault(key, len(numbers))
        return found

    @cached_property
    def comparisons(self) -> Comparisons:
        """All pairs of responses that are compared."""
        found = [
            (number, better, worse, item.gold[better] if item.gold[better] + item.gold[worse] == 1 else 1.0)
            for number, item in enumerate(self._items)
            for better, worse in item.compared()
        ]
        columns = np.array(found, np.float64).reshape(-1, 4)
        places = columns[:, :3].astype(np.int64)
        return Comparisons(places[:, 0], places[:, 1], places[:, 2], columns[:, 3])

    def grid(self, values: Iterable[Sequence[float]]) -> Floats:
        """Make an array (N, K) from one list per item, which has one value per response."""
        rows = [list(row) for row in values]
        filled = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
        for number, row in enumerate(rows):
            filled[number, : len(row)] = row
        return filled


def check_finite(items: Items, rewards: Floats, model: str) -> None:
    """Check that every response has a reward.

    Raises:
        ValueError: if a reward is not finite, naming the first row; a NaN counted as wrong would look like a score.
    """
    missing = ~np.isfinite(rewards) & np.isfinite(items.gold)
    if missing.any():
        number, place = (int(found[0]) for found in np.nonzero(missing))
        item = items[number]
        raise ValueError(
            f"{model}: the reward of response {place} of {item.origin or item.id} is {rewards[number, place]}, and so "
            f"are {int(missing.sum()):,} of {int(np.isfinite(items.gold).sum()):,} rewards; has its training diverged?"
        )
