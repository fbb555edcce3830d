"""What reviewers have decided, read from a file and added to it: every decision is on disk before it counts.

Several tabs, and several servers on one file, write one after the other, for which a `.NAME.lock` lies beside it; each
sees what the others have written before it adds to it. The file's form is `annotation.reviews`'s. This file knows
decisions; no pair.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Container, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from lightning_rm.annotation.reviews import Decision, Review, Verdict, append_review, read_reviews
from lightning_rm.digests import FileState, state_of


class OutdatedError(ValueError):
    """A decision on a pair about which the same reviewer has decided since it was shown."""


class ReviewStore:
    """The decisions in a file.

    Args:
        path: a `.jsonl` file; it need not be there.

    Raises:
        ValueError: if it cannot be read as such; OSError if nothing can be written there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()
        self._lock = threading.Lock()
        self._others = FileLock(self.path.with_name(f".{self.path.name}.lock"), thread_local=False)
        self._read: FileState | None = None
        self._forget()
        with self._turn():
            pass

    def standing(self) -> dict[str, dict[str, Review]]:
        """Return reviewer -> pair id -> the decision that stands: the last one that is not taken back."""
        with self._turn():
            return {
                reviewer: {name: stack[-1] for name, stack in stacks.items() if stack}
                for reviewer, stacks in self._stacks.items()
            }

    def version(self, reviewer: str, pair_id: str) -> int:
        """Say how often a reviewer has written of a pair."""
        with self._turn():
            return self._versions[reviewer, pair_id]

    def decide(self, reviewer: str, pair_id: str, verdict: Verdict, note: str, seen: int) -> Review:
        """Write a decision, which takes the place of an earlier one.

        Args:
            reviewer: who.
            pair_id: of which pair.
            verdict: what.
            note: why, in words.
            seen: the version of the pair that the reviewer has seen.

        Raises:
            OutdatedError: if there is another one by now: nothing is written.
        """
        with self._turn():
            if self._versions[reviewer, pair_id] != seen:
                raise OutdatedError("you have decided about this pair elsewhere since it was shown here")
            return self._append(reviewer, pair_id, verdict, note)

    def undo(self, reviewer: str, among: Container[str]) -> str | None:
        """Take a reviewer's last decision that stands back.

        Args:
            reviewer: who.
            among: the ids of the pairs that are reviewed: a file may hold decisions about others, which stay.

        Returns:
            The id of its pair; None where nothing stands.
        """
        with self._turn():
            last = [pair_id for pair_id in self._last.get(reviewer, []) if pair_id in among]
            if not last:
                return None
            self._append(reviewer, last[-1], "undo", "")
            return last[-1]

    def _append(self, reviewer: str, pair_id: str, decision: Decision, note: str) -> Review:
        review = Review(pair_id, decision, note, reviewer, datetime.now(UTC).isoformat(timespec="milliseconds"))
        append_review(self.path, review)
        self._take(review)
        self._read = state_of(self.path)
        return review

    def _forget(self) -> None:
        self._last: dict[str, list[str]] = {}
        self._stacks: dict[str, dict[str, list[Review]]] = {}
        self._versions: Counter[tuple[str, str]] = Counter()

    def _take(self, review: Review) -> None:
        last = self._last.setdefault(review.reviewer, [])
        stack = self._stacks.setdefault(review.reviewer, defaultdict(list))[review.pair_id]
        self._versions[review.reviewer, review.pair_id] += 1
        if review.decision != "undo":
            last.append(review.pair_id)
            stack.append(review)
        elif stack:
            stack.pop()
            last.reverse()
            last.remove(review.pair_id)
            last.reverse()

    @contextmanager
    def _turn(self) -> Generator[None]:
        """Take this thread's and this process's turn at the file, with all that is in it known."""
        with self._lock, self._others:
            state = state_of(self.path)
            if state != self._read:
                reviews = read_reviews(self.path)  # if it cannot be read, what was known of it is still as it was
                self._forget()
                for review in reviews:
                    self._take(review)
                self._read = state
            yield


def answers(standing: Mapping[str, Mapping[str, Review]]) -> dict[str, dict[str, str]]:
    """Return reviewer -> pair id -> keep, flip or tie: what those that are not skipped were found to be."""
    return {
        reviewer: {name: review.decision for name, review in reviews.items() if review.decision != "skip"}
        for reviewer, reviews in standing.items()
    }
