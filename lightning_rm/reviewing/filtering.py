"""Which pairs a reviewer goes through: by what was decided, by subset, decile and words.

It knows pairs by row and the store; not their order, and not what may be seen of a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_rm.annotation.reviews import Review
from lightning_rm.reviewing.pairs import PairFile
from lightning_rm.reviewing.sides import AskError
from lightning_rm.reviewing.store import ReviewStore, answers

Bools = NDArray[np.bool_]
Status = Literal["todo", "done", "all", "keep", "flip", "tie", "skip", "noted", "disagreed"]

NUM_SEARCHES = 8
"""The most searches whose results stay in memory."""


@dataclass(frozen=True)
class Show:
    """Which pairs to go through.

    Args:
        status: `todo` are those that the reviewer has not decided.
        subset: of the data; None for all.
        decile: of strength; None for all.
        query: words that stand in the pair; empty for all.
    """

    status: Status = "todo"
    subset: str | None = None
    decile: int | None = None
    query: str = ""


class Filter:
    """Finds the pairs to show.

    Args:
        pairs: the file.
        store: where decisions are.
        is_first: (N,) the rows that stand for a pair: rows of one id are one pair.
        subset: (N,) names, as they are shown.
        decile: (N,) of strength.
        blind: whether deciles, and which side was kept, are hidden.
    """

    def __init__(
        self,
        pairs: PairFile,
        store: ReviewStore,
        is_first: Bools,
        subset: NDArray[np.str_],
        decile: NDArray[np.integer],
        blind: bool,
    ) -> None:
        self.pairs, self.store, self.blind = pairs, store, blind
        self._is_first, self._subset, self._decile = is_first, subset, decile
        self._found: dict[str, Bools] = {}

    def shown(self, reviewer: str, show: Show) -> Bools:
        """Return (N,) which rows to show.

        Raises:
            AskError: for an unknown status, and in a blind review for what it hides.
        """
        if self.blind and (show.decile is not None or show.status in ("keep", "flip")):
            raise AskError("in a blind review there is nothing to see of deciles, or of which side was kept")
        if show.status not in get_args(Status):
            raise AskError(f"status={show.status}: there are {', '.join(get_args(Status))}")
        kept = self._of_status(show.status, self.store.standing(), reviewer)
        if show.subset is not None:
            kept &= self._subset == show.subset
        if show.decile is not None:
            kept &= self._decile == show.decile
        if show.query:
            *_, (_, is_found) = self.search(show.query)
            kept &= is_found
        return kept

    def search(self, query: str) -> Iterator[tuple[int, Bools]]:
        """Yield, after each piece of the file, the rows read and (N,) which have the words; the last result is kept."""
        if (known := self._found.get(query)) is not None:
            yield len(self.pairs), known
            return
        is_found = np.zeros(len(self.pairs), bool)
        for num_read, rows in self.pairs.search(query):
            is_found[rows] = True
            if num_read == len(self.pairs):
                self._found = {**dict(list(self._found.items())[1 - NUM_SEARCHES :]), query: is_found}
            yield num_read, is_found

    def _of_status(self, status: Status, standing: Mapping[str, Mapping[str, Review]], reviewer: str) -> Bools:
        mine = standing.get(reviewer, {})
        if status == "all":
            return self._is_first.copy()
        if status == "todo":
            return self._is_first & ~self._only(mine)
        if status == "disagreed":
            said: dict[str, set[str]] = {}
            for reviews in answers(standing).values():
                for name, answer in reviews.items():
                    said.setdefault(name, set()).add(answer)
            return self._only({name for name, found in said.items() if len(found) > 1})
        return self._only(
            {
                name
                for name, review in mine.items()
                if status in ("done", review.decision) or (status == "noted" and review.note)
            }
        )

    def _only(self, names: Mapping[str, object] | set[str]) -> Bools:
        kept = np.zeros(len(self.pairs), bool)
        kept[[self.pairs.row_of[name] for name in names if name in self.pairs.row_of]] = True
        return kept
