"""Optimizer steps whose gradient is far longer than those before them: how many, and of which pairs.

It knows norms, as numbers, and rows; no gradient, no model and no files.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_rm.counts import is_number, number_of
from lightning_rm.modules.gather import gather_rows, world_size

WINDOW = 100
"""Steps whose median is the level that a norm is compared with."""
LEAST = 20
"""Steps without which there is no level."""
KEPT = 20
"""Spikes that are kept with their pairs: the largest. All are counted."""


class Spike(NamedTuple):
    """A step whose gradient was far longer than those before it.

    Args:
        step: optimizer steps that were done before it.
        norm: of its gradient, before clipping.
        level: the median of the norms before it.
        rows: of the training pairs that it came from.
    """

    step: int
    norm: float
    level: float
    rows: tuple[int, ...]

    @property
    def times(self) -> float:
        """How many times the level the norm is."""
        return self.norm / self.level


class GradientSpikes:
    """Compares each norm with the median of up to `WINDOW` before it, which a spike hardly moves.

    Norms 1, 1, ..., 1, 30 with a factor of 10 -> the last one is a spike, 30 times the level.

    Args:
        factor: a norm above so many times the level is a spike; None for none.

    Attributes:
        num: spikes of the run, as far as norms are read.
        kept: the `KEPT` largest, in the order of steps. Of several ranks each has the rows of its own pairs.

    Raises:
        ValueError: if the factor is not above 1.
    """

    def __init__(self, factor: float | None) -> None:
        if factor is not None and not (is_number(factor) and factor > 1):
            raise ValueError(
                f"spike_factor={factor}: give a number above 1, the median norm's multiple; null counts none"
            )
        self.factor = factor
        self.num = 0
        self.kept: list[Spike] = []
        self._norms: deque[float] = deque(maxlen=WINDOW)

    def see(self, step: int, norm: float, rows: Sequence[Tensor]) -> None:
        """Count the norm of a step, and keep it if it is a spike.

        Args:
            step: optimizer steps that were done before it.
            norm: finite.
            rows: (P,) of each micro-batch's pairs; -1 for fillers. They are read for a spike alone.
        """
        if self.factor is None:
            return
        level = statistics.median(self._norms) if len(self._norms) >= LEAST else 0.0
        self._norms.append(norm)
        if not 0 < self.factor * level < norm:
            return
        self.num += 1
        found = (row for part in rows for row in part.tolist() if row >= 0)
        self.kept.append(Spike(step, norm, level, tuple(found)))
        if len(self.kept) > KEPT:
            self.kept.remove(min(self.kept, key=lambda spike: spike.times))

    def whole(self, device: torch.device) -> list[Spike]:
        """Return what is kept with the rows of all ranks; all of them call this alike.

        Args:
            device: that ranks exchange tensors on.
        """
        if world_size() == 1 or not self.kept:  # norms, and so spikes, are the same on every rank
            return self.kept
        own = [(place, row) for place, spike in enumerate(self.kept) for row in spike.rows]
        gathered, _ = gather_rows(torch.tensor(own, dtype=torch.long, device=device).reshape(-1, 2))
        rows: list[list[int]] = [[] for _ in self.kept]
        for place, row in gathered.tolist():
            rows[place].append(row)
        return [spike._replace(rows=tuple(found)) for spike, found in zip(self.kept, rows, strict=True)]

    def told(self) -> str:
        """Return a sentence on how many there were and which was the largest; empty if there was none."""
        if not self.num:
            return ""
        most = max(self.kept, key=lambda spike: spike.times)
        return (
            f"{number_of(self.num, 'optimizer step')} had a gradient over {self.factor:g} times as long as those "
            f"before, the longest {most.times:.3g} times at step {most.step:,}"
        )

    def state(self, device: torch.device) -> dict[str, Any]:
        """Return, for a checkpoint, plain values of all ranks; all of them call this alike."""
        return {"num": self.num, "norms": list(self._norms), "kept": [list(spike) for spike in self.whole(device)]}

    def load(self, state: Mapping[str, Any], rank: int) -> None:
        """Take up what `state` gave: the rows on the first rank."""
        self.num = state["num"]
        self._norms = deque(state["norms"], maxlen=WINDOW)
        self.kept = [
            Spike(step, norm, level, tuple(rows) if rank == 0 else ()) for step, norm, level, rows in state["kept"]
        ]
