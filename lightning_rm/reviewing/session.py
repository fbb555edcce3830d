"""A review: which pair is next, what a reviewer may see of it, and what all decisions say together.

It knows pairs, their order and the store; no HTTP. In a blind review neither label nor votes leave this file, nor what
would tell of them, and the responses change places by chance (`sides`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_rm.annotation.reviews import Review, Verdict, verdicts
from lightning_rm.data.rows import PairRow
from lightning_rm.markup import visible
from lightning_rm.reviewing.filtering import Filter, Show, Status
from lightning_rm.reviewing.order import REASONS, Ordering, deciles, review_order
from lightning_rm.reviewing.pairs import PairFile
from lightning_rm.reviewing.shown import shown, shown_pair
from lightning_rm.reviewing.sides import AskError, Choice, Sides
from lightning_rm.reviewing.store import ReviewStore
from lightning_rm.reviewing.telling import ENOUGH, agreement, fair_sample, flips_told

__all__ = ["AskError", "Choice", "ReviewSession", "Show", "Status"]


class ReviewSession:
    """A review of one file.

    Args:
        pairs: the file.
        store: where decisions go.
        ordering: as in `order.review_order`.
        blind: hide label and votes.
        seed: of what is by chance: the order, and the sides of a blind review.
    """

    def __init__(
        self, pairs: PairFile, store: ReviewStore, ordering: Ordering = "worth", blind: bool = False, seed: int = 0
    ) -> None:
        self.pairs, self.store, self.blind, self.seed = pairs, store, blind, seed
        self.is_fair = ordering == "worth"
        self._order = review_order(pairs.mean, pairs.std, ordering, seed)
        self._is_first = np.zeros(len(pairs), bool)  # rows of one id are one pair
        self._is_first[list(pairs.row_of.values())] = True
        self._decile = deciles(pairs.mean)
        self._place = np.empty(len(pairs), np.int64)
        self._place[self._order.row] = np.arange(len(pairs))
        self._subset = np.array([visible(name) for name in pairs.subset])
        self._subsets = sorted(Counter(self._subset.tolist()).items())
        self._sides = Sides(blind, seed)
        self._filter = Filter(pairs, store, self._is_first, self._subset, self._decile, blind)

    def next(self, reviewer: str, show: Show, after: int, step: int = 1, limit: int | None = None) -> dict[str, Any]:
        """Return the next pair to look at.

        Args:
            reviewer: who looks.
            show: which pairs.
            after: a place in the order; -1 for the first pair. Behind the last one the first is next.
            step: 1, or -1 for the one before.
            limit: the most characters of each text.

        Returns:
            `pair`, or None where there is none, and how many there are.
        """
        places = self._places(reviewer, show)
        if not len(places):
            return {"pair": None, "num_shown": 0}
        if step > 0:
            at = int(np.searchsorted(places, after, "right")) % len(places)
        else:
            at = (int(np.searchsorted(places, after, "left")) - 1) % len(places)
        return {"pair": self.pair(reviewer, int(places[at]), limit), "num_shown": len(places), "number": at + 1}

    def listed(self, reviewer: str, show: Show, offset: int, num: int) -> dict[str, Any]:
        """Return a page of the pairs: where each stands, how its prompt begins, what the reviewer has decided."""
        places = self._places(reviewer, show)
        mine = self.store.standing().get(reviewer, {})
        rows: list[dict[str, Any]] = []
        for place in places[offset : offset + num].tolist():
            row = int(self._order.row[place])
            review = mine.get(self.pairs.ids[row])
            rows.append(
                {
                    "place": place,
                    "id": visible(self.pairs.ids[row]),
                    "begins": visible(self.pairs.beginning(row, 160)),
                    "decision": review and self._told(row, review),
                }
            )
            if not self.blind:
                rows[-1] |= {"strength": float(self.pairs.mean[row]), "decile": int(self._decile[row])}
        return {"rows": rows, "num": len(places), "offset": offset}

    def pair(self, reviewer: str, place: int, limit: int | None = None) -> dict[str, Any]:
        """Return the pair at a place of the order, as a reviewer may see it.

        Raises:
            AskError: if there is no such place.
        """
        row = self._row_at(place)
        pair_id = self.pairs.ids[row]
        texts = self._texts(row)
        is_read = isinstance(texts, PairRow)
        prompt, chosen, rejected = (texts.prompt, texts.chosen, texts.rejected) if is_read else ((), (), ())
        sides = shown_pair(chosen, rejected, limit)
        first, second = sides[:2][:: -1 if self._sides.are_swapped(pair_id) else 1]
        standing = self.store.standing()
        mine = standing.get(reviewer, {}).get(pair_id)
        told: dict[str, Any] = {
            "place": place,
            "id": visible(pair_id),
            "subset": str(self._subset[row]),
            "error": None if is_read else visible(texts),
            "prompt": shown(prompt, limit),
            "first": first,
            "second": second,
            "same": sides[2],
            "seen": self.store.version(reviewer, pair_id),
            "mine": mine and self._told(row, mine),
            "others": [],
        }
        if mine is not None:  # not before, so that each judges alone
            told["others"] = [
                {"reviewer": other} | self._told(row, reviews[pair_id])
                for other, reviews in standing.items()
                if other != reviewer and pair_id in reviews
            ]
        if not self.blind:
            told |= {
                "reason": REASONS[self._order.reason[place]] if self.is_fair else None,
                "decile": int(self._decile[row]),
                "mean": float(self.pairs.mean[row]),
                "std": float(self.pairs.std[row]),
                "votes": self.pairs.votes(row),
                "vote_limit": self.pairs.vote_limit,
            }
        return told

    def decide(self, reviewer: str, place: int, choice: Choice, note: str, seen: int) -> None:
        """Write a decision; it is on the disk when this returns.

        Raises:
            AskError: if there is no such place, or a blind reviewer names the label.
            OutdatedError: if the reviewer has decided about the pair elsewhere.
        """
        pair_id = self.pairs.ids[self._row_at(place)]
        self.store.decide(reviewer, pair_id, self._sides.decision(pair_id, choice), note, seen)

    def undo(self, reviewer: str) -> int | None:
        """Take the reviewer's last decision back and return the place of its pair; None where there is none."""
        pair_id = self.store.undo(reviewer, self.pairs.row_of)
        return None if pair_id is None else int(self._place[self.pairs.row_of[pair_id]])

    def search(self, query: str) -> Iterator[tuple[int, int]]:
        """Look for words in all pairs: the rows read so far and those found; what is found stays for `Show.query`."""
        for num_read, is_found in self._filter.search(query):
            yield num_read, int(is_found.sum())

    def state(self, reviewer: str) -> dict[str, Any]:
        """Say how far a reviewer is, how far reviewers agree, and what their reviews tell of the rest."""
        standing = {
            name: {pair_id: review for pair_id, review in reviews.items() if pair_id in self.pairs.row_of}
            for name, reviews in self.store.standing().items()  # of other pairs, too, where several files share it
        }
        mine = standing.get(reviewer, {})
        counts = Counter(review.decision for review in mine.values())
        told: dict[str, Any] = {"tie": counts["tie"], "skip": counts["skip"]}
        told |= {"chosen": counts["keep"] + counts["flip"]} if self.blind else dict(counts)
        return {
            "file": visible(str(self.pairs.path)),
            "reviews": visible(str(self.store.path)),
            "blind": self.blind,
            "num_pairs": int(self._is_first.sum()),
            "num_done": len(mine),
            "counts": told,
            "subsets": self._subsets,
            "reviewers": {visible(name): len(reviews) for name, reviews in standing.items() if reviews},
            "agreement": agreement(standing),
            "tells": self._tells(standing),
        }

    def _tells(self, standing: Mapping[str, Mapping[str, Review]]) -> dict[str, Any]:
        """Return what the reviews tell of the rest, once there are enough of them.

        In a blind review they stay here: whoever compared the wrong labels of a decile before and after a decision
        would see what the label was.
        """
        found = verdicts(review for reviews in standing.values() for review in reviews.values())
        said: dict[int, Verdict] = {self.pairs.row_of[name]: verdict for name, verdict in found.items()}
        num_reviewed = sum(verdict != "skip" for verdict in said.values())
        wrong = fair_sample(self._order, said, self._is_first)
        num_fair = int((~np.isnan(wrong)).sum())
        told = {"num_reviewed": num_reviewed, "num_fair": num_fair, "enough": ENOUGH, "is_fair": self.is_fair}
        if self.blind or num_reviewed < ENOUGH or not num_fair:
            return told
        return told | flips_told(self._decile, self.pairs.mean, wrong)

    def _row_at(self, place: int) -> int:
        if not 0 <= place < len(self.pairs):
            raise AskError(f"place={place}: there are places from 0 to {len(self.pairs) - 1}")
        return int(self._order.row[place])

    def _places(self, reviewer: str, show: Show) -> NDArray[np.int64]:
        """Return the places of the pairs to show, rising."""
        return np.flatnonzero(self._filter.shown(reviewer, show)[self._order.row])

    def _texts(self, row: int) -> PairRow | str:
        """Return a pair with its texts, or why they cannot be read: it does not bar the way to the others."""
        try:
            return self.pairs.pair(row)
        except AskError:  # none can be
            raise
        except ValueError as error:
            return str(error)

    def _told(self, row: int, review: Review) -> dict[str, Any]:
        """Return a decision as a reviewer may see it."""
        choice = self._sides.choice(self.pairs.ids[row], review.decision)
        return {"choice": choice, "note": visible(review.note), "time": review.time}
