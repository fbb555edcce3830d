"""Dynamic batching: one thread owns the model and scores whatever is waiting, from any number of requests.

The next batch collects while one is scored: a lone request does not wait, and concurrent requests share forward
passes and the prompts that they have in common. This file knows token ids and a function that scores them; no HTTP,
tokenizer or layout.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightning_rm.counts import check_counts

Rewards = NDArray[np.float32]
Score = Callable[[Sequence[Sequence[int]]], Rewards]
"""n token sequences -> (n, M) float32 rewards, those of the M members."""


class NonFiniteRewardError(RuntimeError):
    """The model's reward of a sequence is NaN or infinite."""


@dataclass
class _Order:
    """The sequences of one request, and their rewards so far."""

    sequences: Sequence[Sequence[int]]
    future: Future[Rewards] = field(default_factory=Future[Rewards])
    rewards: list[Rewards] = field(default_factory=list[Rewards])
    taken: int = 0
    begun: bool = False

    def is_wanted(self) -> bool:
        """Tell whether somebody still waits for its rewards.

        The client may have disconnected, or an earlier part may have failed.
        """
        self.begun = self.begun or self.future.set_running_or_notify_cancel()
        return self.begun and not self.future.done()


@dataclass(frozen=True)
class _Piece:
    """The part of an order that one batch scores."""

    order: _Order
    sequences: Sequence[Sequence[int]]


class Batcher:
    """Scores the sequences of many requests together.

    Args:
        score: called by one thread alone, with the sequences of one batch.
        batch_tokens: the most tokens of a batch; a single longer sequence is a batch of its own. The rest of a large
            request goes to the end of the queue.
        counted: called with the number of sequences and of tokens of each batch.
    """

    def __init__(
        self, score: Score, batch_tokens: int = 16384, counted: Callable[[int, int], None] | None = None
    ) -> None:
        check_counts(1, batch_tokens=batch_tokens)
        self.score = score
        self.batch_tokens = batch_tokens
        self.counted = counted
        self._waiting: deque[_Order] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.failure: Exception | None = None
        """Why the sequences that were scored last have no rewards; None where they have."""

    @property
    def num_waiting(self) -> int:
        """Sequences that are in no batch yet."""
        with self._changed:
            return sum(len(order.sequences) - order.taken for order in self._waiting)

    def submit(self, sequences: Sequence[Sequence[int]]) -> Future[Rewards]:
        """Return a future of the rewards of one request's sequences, (n, M).

        Raises:
            RuntimeError: after `close`.
        """
        order = _Order(sequences)
        if not sequences:
            order.future.set_result(np.zeros((0, 1), dtype=np.float32))
            return order.future
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is closing")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="reward model", daemon=True)
                self._thread.start()
            self._waiting.append(order)
            self._changed.notify()
        return order.future

    def close(self) -> None:
        """Score everything that waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while pieces := self._next():
            if self.counted is not None:
                tokens = [len(ids) for piece in pieces for ids in piece.sequences]
                self.counted(len(tokens), sum(tokens))
            try:
                self._answer(pieces)
            except Exception as error:  # one request's sequences must not cost the others their rewards
                if len(pieces) == 1:
                    self._fail(pieces[0].order, error)
                    continue
                for piece in pieces:
                    try:
                        self._answer([piece])
                    except Exception as its_own:
                        self._fail(piece.order, its_own)

    def _next(self) -> list[_Piece]:
        """Return the pieces of the next batch; none when all is done and the batcher is closed."""
        with self._changed:
            while True:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if pieces := self._pieces():
                    return pieces
                if self._closed and not self._waiting:
                    return []

    def _pieces(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        left = self.batch_tokens
        while self._waiting:
            order = self._waiting[0]
            if not order.is_wanted():
                self._waiting.popleft()
                continue
            stop = order.taken
            while stop < len(order.sequences):
                length = len(order.sequences[stop])
                if length > left and (pieces or stop > order.taken):
                    break
                left -= length
                stop += 1
            if stop == order.taken:
                break
            pieces.append(_Piece(order, order.sequences[order.taken : stop]))
            order.taken = stop
            self._waiting.popleft()
            if stop < len(order.sequences):
                self._waiting.append(order)
                break
        return pieces

    def _answer(self, pieces: Sequence[_Piece]) -> None:
        rewards = self.score([ids for piece in pieces for ids in piece.sequences])
        start = 0
        for piece in pieces:
            order, stop = piece.order, start + len(piece.sequences)
            own, start = rewards[start:stop], stop
            if not np.isfinite(own).all():
                self._fail(order, NonFiniteRewardError("the model's reward is not a finite number"))
                continue
            self.failure = None
            order.rewards.append(own)
            if sum(map(len, order.rewards)) == len(order.sequences):
                order.future.set_result(np.concatenate(order.rewards))

    def _fail(self, order: _Order, error: Exception) -> None:
        self.failure = error
        if not order.future.done():
            order.future.set_exception(error)
