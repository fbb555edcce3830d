"""The batcher mixes requests and hands back to each its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from lightning_rm.serving.batcher import Batcher, Rewards
from tests.serving.toy_service import in_float32, summed


class Gate:
    """Scores as `summed`, its first batch when the gate opens, and keeps what each batch held."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[list[int]]] = []

    def __call__(self, sequences: Sequence[Sequence[int]]) -> Rewards:
        self.batches.append([list(ids) for ids in sequences])
        self.entered.set()
        self.opened.wait()
        return summed(sequences)


def test_what_waits_is_scored_together_within_the_budget() -> None:
    """A budget of 6: [1], then [2, 2] with half of the large request, whose rest goes behind the request after it."""
    gate = Gate()
    batcher = Batcher(gate, batch_tokens=6)
    first = batcher.submit([[1]])
    gate.entered.wait()
    others = [batcher.submit(ids) for ids in ([[2, 2]], [[3] * 4, [4] * 4], [[5]])]
    assert batcher.num_waiting == 4
    gate.opened.set()
    rewards = [future.result().ravel().tolist() for future in (first, *others)]
    assert rewards == [[in_float32(r) for r in row] for row in ([0.01], [0.04], [0.12, 0.16], [0.05])]
    assert gate.batches == [[[1]], [[2, 2], [3] * 4], [[5], [4] * 4]]
    batcher.close()


def test_a_sequence_above_the_budget_goes_alone() -> None:
    gate = Gate()
    gate.opened.set()
    batcher = Batcher(gate, batch_tokens=2)
    assert batcher.submit([[1, 1, 1], [1]]).result().shape == (2, 1)
    assert gate.batches == [[[1, 1, 1]], [[1]]]
    batcher.close()


def test_a_client_that_has_gone_is_not_scored() -> None:
    gate = Gate()
    batcher = Batcher(gate, batch_tokens=100)
    first, gone, last = batcher.submit([[1]]), batcher.submit([[2]]), batcher.submit([[3]])
    gate.entered.wait()
    scored = [ids for batch in gate.batches for ids in batch]
    assert gone.cancel() == ([2] not in scored)
    gate.opened.set()
    assert last.result().item() == in_float32(0.03)
    assert first.result().item() == in_float32(0.01)
    batcher.close()


def test_closing_answers_what_waits_and_takes_nothing_more() -> None:
    gate = Gate()
    batcher = Batcher(gate, batch_tokens=4)
    futures = [batcher.submit([[number] * 3]) for number in range(5)]
    gate.entered.wait()
    closing = threading.Thread(target=batcher.close)
    closing.start()
    gate.opened.set()
    closing.join()
    rewards = np.concatenate([future.result(timeout=0) for future in futures]).ravel().tolist()
    assert rewards == [in_float32(3 * number / 100) for number in range(5)]
    with pytest.raises(RuntimeError, match="closing"):
        batcher.submit([[1]])
