"""What a rank has counted in training and which random numbers come next, so that a resumed run logs what one that
never stopped does, and draws its dropout masks.

It knows sums by name; not what they are sums of, nor a trainer. Ranks are reached by functions that are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_rm.precision import widest

AcrossRanks = Callable[[Tensor], Tensor]
"""From this rank's tensor to one of all ranks: their sum, or each of theirs along a new first dimension."""

Totals = dict[str, Tensor]


class _Snapshot(NamedTuple):
    """What a training batch changes beside the weights: both sums, and the random states of CPU and GPU."""

    since_log: Totals
    since_epoch: Totals
    random_states: list[Tensor]


class Progress:
    """This rank's sums over training pairs, since the last log and since the epoch began, and its random states."""

    def __init__(self) -> None:
        self._since_log: Totals = {}
        self._since_epoch: Totals = {}
        self._before_batch = _Snapshot({}, {}, [])
        self._resumed = _Snapshot({}, {}, [])

    def start(self, device: torch.device) -> None:
        """Go on with the sums and the random numbers of a checkpoint that was loaded; or anew."""
        self._since_log, self._since_epoch, states = self._resumed
        self._resumed = _Snapshot({}, {}, [])
        if states:
            torch.set_rng_state(states[0])
        if states[1:]:
            torch.cuda.set_rng_state(states[1], device)

    def start_batch(self, device: torch.device) -> None:
        """Remember what a batch will change, for Ctrl-C may come in the middle of it."""
        self._before_batch = self._snapshot(device)

    def start_epoch(self) -> None:
        """Forget the last epoch's sums."""
        self._since_epoch = {}

    def add(self, logged: Mapping[str, Tensor], of_epoch: Mapping[str, Tensor]) -> None:
        """Add to the sums since the last log, and to those of the epoch."""
        _add(self._since_log, logged)
        _add(self._since_epoch, of_epoch)

    def take_since_log(self, add_up: AcrossRanks) -> Totals:
        """Return all ranks' sums since the last log, which begin anew."""
        totals, self._since_log = _mapped(add_up, self._since_log), {}
        return totals

    def since_epoch(self, add_up: AcrossRanks) -> Totals:
        """Return all ranks' sums of the epoch, which stay until the next begins: a run may go on within this one."""
        return _mapped(add_up, self._since_epoch)

    def state(
        self, device: torch.device, within_batch: bool, add_up: AcrossRanks, gather: AcrossRanks
    ) -> dict[str, Any]:
        """Return, for a checkpoint, `sums` of all ranks, and `random_state`, a row a rank for the CPU and one for the
        GPU.

        Args:
            device: this rank's.
            within_batch: whether a batch is not over: then what was before it counts.
            add_up: the sum over ranks.
            gather: each rank's.
        """
        *sums, states = self._before_batch if within_batch else self._snapshot(device)
        summed = [{name: total.cpu() for name, total in _mapped(add_up, totals).items()} for totals in sums]
        gathered = [gather(state.to(device)).cpu().reshape(-1, state.numel()) for state in states]
        return {"sums": summed, "random_state": gathered}

    def load(self, state: Mapping[str, Any], device: torch.device, rank: int) -> None:
        """Take up what `state` gave, at the next `start`: the sums on the first rank, and this rank's random states."""
        share = float(rank == 0)
        since_log, since_epoch = (
            {name: total.to(device, widest(device)) * share for name, total in totals.items()}
            for totals in state.get("sums", ({}, {}))
        )
        states = [of_ranks[rank % len(of_ranks)].clone() for of_ranks in state["random_state"]]
        self._resumed = _Snapshot(since_log, since_epoch, states)

    def _snapshot(self, device: torch.device) -> _Snapshot:
        states = [torch.get_rng_state()]
        if device.type == "cuda":
            states.append(torch.cuda.get_rng_state(device))
        return _Snapshot(self._since_log.copy(), self._since_epoch.copy(), states)


def _add(totals: Totals, values: Mapping[str, Tensor]) -> None:
    """Add to sums by name, those of new names too; not in place, for two sums share a tensor at first."""
    for name, value in values.items():
        totals[name] = totals[name] + value if name in totals else value


def _mapped(function: AcrossRanks, totals: Totals) -> Totals:
    return {name: function(total.clone()) for name, total in totals.items()}
