"""Stopping by Ctrl-C, SIGTERM, a closed terminal or a cluster's notice: between two batches, the same on every rank.

It knows signals, processes and Lightning's hooks; what is saved then is `ResumeCheckpoint`'s business.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_rm.system import HANGUP, hears_hangup, leave_terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The exception of a run that was asked to stop, once every rank has stopped: all of them may save together."""


class Stop(L.Callback):
    """A callback that turns the first signal into a stop before the next batch, and Ctrl-C after it into one at once.

    A signal may reach only one of several ranks, or each of them in another batch, and the others would then wait for
    ever. So each batch sends the ranks' flags round, beside the work and without a wait for a device, and the next
    batch reads them: all ranks stop before the same one.

    Under Slurm the signal that announces the end of a job's time counts too; submitit's is handed back to it once the
    run has stopped. Only a person asks twice: what follows of a machine, such as SIGTERM when that time is up, waits.

    Attributes:
        signal: the signal that the run was stopped by; None for none.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._listens = False
        self._group: Any = None
        self._sent: tuple[Tensor, Any] | None = None
        self._announce = False
        self._theirs: dict[signal.Signals, Any] = {}
        self._at_hangup: Any = None

    @property
    def exit_code(self) -> int:
        """The code that a shell gives a process that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)

    def hand_back(self) -> None:
        """Give the signal that the run was stopped by to whoever listened to it before, if it was submitit."""
        if self.signal is not None and self.signal in self._theirs:
            signal.signal(self.signal, self._theirs[self.signal])
            signal.raise_signal(self.signal)

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; Lightning's own handlers were set just before."""
        self._listen(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen."""
        self._listen(trainer)
        # Lightning would ask every rank's device in every batch whether rank 0 has been told to end.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # pyright: ignore[reportPrivateUsage]

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen."""
        self._listen(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen."""
        self._listen(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any rank was asked to."""
        self._look()

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop if any rank was asked to."""
        self._look()

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop if any rank was asked to."""
        self._look()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen no more: Lightning has put back the handlers that it found."""
        self._listens = False
        self._group, self._sent = None, None
        for number, handler in self._theirs.items():
            signal.signal(number, handler)
        if HANGUP is not None and self._at_hangup is not None:
            signal.signal(HANGUP, self._at_hangup)
            self._at_hangup = None

    def _listen(self, trainer: L.Trainer) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")
        if self._listens or threading.current_thread() is not threading.main_thread():
            return
        self._announce = trainer.is_global_zero
        numbers: list[signal.Signals] = list(SIGNALS)
        if "SLURM_JOB_ID" in os.environ:
            # On it Lightning would save at once, wherever each rank is; where it does not know the job for Slurm's,
            # as under torchrun, the process would end.
            numbers.append(signal.SIGUSR1)
        if "SUBMITIT_EXECUTOR" in os.environ:
            # Its handler would queue the job again and end this process, whatever is unsaved.
            notice = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
            self._theirs.setdefault(notice, signal.getsignal(notice))
            numbers.append(notice)
        if HANGUP is not None and hears_hangup():
            self._at_hangup = signal.getsignal(HANGUP)
            numbers.append(HANGUP)
        for number in numbers:
            signal.signal(number, self._asked)
        self._listens = True

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            leave_terminal()
        if self.signal is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.signal = signal.Signals(number)
        if self._announce:
            os.write(2, b"\nstopping before the next batch; another Ctrl-C stops at once\n")

    def _look(self) -> None:
        """Raise if a rank was asked to stop, before the batch that follows on all of them."""
        if self._group is None:
            asked = self.signal
        else:
            asked = self._last_sent()
            flag = torch.tensor(int(self.signal or 0))
            self._sent = flag, dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        if asked:
            self.signal = signal.Signals(asked)
            raise Stopped

    def _last_sent(self) -> int:
        """Return the signal that any rank had received when the previous batch began; 0 for none."""
        if self._sent is None:
            return 0
        flag, work = self._sent
        cast(Callable[[], None], work.wait)()
        return int(flag)
