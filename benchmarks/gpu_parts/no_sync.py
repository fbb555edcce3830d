"""Part 2: no step waits for the device.

Twice: a step by hand, its batch copied from pinned memory, under `torch.cuda.set_sync_debug_mode("error")`, which
raises at the first operation that waits; and steps of Lightning's trainer under "warn", whose waits are counted. A
module waits on the steps that it logs, and MetaRM once a step: it climbs only where J's gradient is finite.

On a CPU nothing can be waited for. There the step by hand runs on torch's `meta` device, whose tensors have no values,
so that whatever asks for one raises; the trainer's steps run and nothing is counted.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
import transformers
from torch.utils.data import DataLoader
from training import lightning_trainer

from gpu_parts.equality import small
from gpu_parts.models import batch_of, hh_lengths, made_samples, methods, reward_model
from gpu_parts.run import Missing, Run, begun
from lightning_rm.batch import LayoutName, PreferenceBatch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrasted import Contrasted
from lightning_rm.modules.contrastive import ContrastiveRM

ADAMW = partial(torch.optim.AdamW, lr=1e-5, fused=True)
BY_HAND, IN_TRAINER = 3, 6
"""Steps; the first is not watched: kernels are loaded and views are checked."""


def main(cases: Path, seconds: float, tiny: bool) -> None:
    measure(begun("no_sync", cases, seconds, tiny, transformers, L))


def measure(run: Run) -> None:
    for name in methods(lambda: reward_model(small(run.tiny), run.device), ADAMW):
        for layout in ("shared_prefix",) if run.tiny else LAYOUTS:
            run.case(f"{name}, {layout}, by hand", partial(by_hand, run, name, layout))
    for name in methods(lambda: reward_model(small(run.tiny), run.device), ADAMW):
        run.case(f"{name}, shared_prefix, by Lightning", partial(by_lightning, run, name))


def by_hand(run: Run, name: str, layout: LayoutName) -> dict[str, Any]:
    """Steps that raise where they would wait."""
    if name == "meta":
        raise Missing("does not step without a trainer, which waits for it")
    device = run.device if run.gpu else torch.device("meta")
    module = module_of(run, name, device)
    optimizer: Any = None
    if run.gpu:
        optimizer = ADAMW([weight for weight in module.parameters() if weight.requires_grad])
    batch = batches(run, layout, 1)[0]
    if run.gpu:
        batch = batch.pin_memory()
    if not run.gpu and isinstance(module, ContrastiveRM):  # whose first views of a run are looked at
        module.objective.last = Contrasted(*torch.zeros(3, 1))
    with autocast(run):
        for number in range(BY_HAND if run.gpu else 1):
            with watched(run, number > 0):
                loss = module.training_step(batch.to(device), number + 1)
                loss.backward()
                if run.gpu:
                    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0, foreach=True)
                    optimizer.step()
                    optimizer.zero_grad()
    if run.gpu and not torch.isfinite(loss.detach()):
        return {"state": "failed: the loss is not finite"}
    return {"state": "no wait", "watched_by": "CUDA" if run.gpu else "meta device"}


@contextlib.contextmanager
def watched(run: Run, watching: bool) -> Iterator[None]:
    """What waits raises."""
    if not run.gpu or not watching:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def autocast(run: Run) -> Iterator[None]:
    """In bfloat16 on a GPU; autocast knows no meta device."""
    if run.gpu:
        with torch.autocast("cuda", torch.bfloat16):
            yield
    else:
        with patch.object(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext()):
            yield


def by_lightning(run: Run, name: str) -> dict[str, Any]:
    """Waits of a step in Lightning's trainer, none of whose steps is logged."""
    module = module_of(run, name, torch.device("cpu"))
    counter = Waits(run, IN_TRAINER)
    num_steps = IN_TRAINER if run.gpu else 1
    trainer = lightning_trainer(run.gpu, [counter], log_every_n_steps=10**9, max_steps=num_steps)
    prepared = batches(run, "shared_prefix", num_steps, responses=module.reads_responses)
    try:
        trainer.fit(module, DataLoader(prepared, batch_size=None, collate_fn=lambda batch: batch, pin_memory=run.gpu))
    finally:
        counter.stop()
    if not run.gpu:
        raise Missing("not on a CPU: it ran, and there is nothing to wait for")
    state = "no wait" if not counter.waits else "measured" if name == "meta" else "waits"
    a_step = counter.waits / (num_steps - 1)
    return {"state": state, "waits_a_step": a_step, "where": "; ".join(sorted(counter.places))}


class Waits(L.Callback):
    """Counts what waits, from the end of the first step to that of the last, and notes where."""

    def __init__(self, run: Run, num_steps: int) -> None:
        self.gpu, self.num_steps = run.gpu, num_steps
        self.waits = 0
        self.places: set[str] = set()
        self._caught: contextlib.ExitStack | None = None
        self._seen: list[warnings.WarningMessage] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.global_step == self.num_steps:
            self.stop()
        elif self.gpu and self._caught is None:
            self._caught = contextlib.ExitStack()
            self._seen = self._caught.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def stop(self) -> None:
        """Put warnings back as they were, and count."""
        if self._caught is None:
            return
        torch.cuda.set_sync_debug_mode("default")
        found = [warning for warning in self._seen if "synchroniz" in str(warning.message)]
        self.waits += len(found)
        self.places |= {f"{Path(warning.filename).name}:{warning.lineno}" for warning in found}
        self._caught.close()
        self._caught, self._seen = None, []


def module_of(run: Run, name: str, device: torch.device) -> PairwiseRM:
    """A module with its model and its own parts on a device, in training."""
    return methods(lambda: reward_model(small(run.tiny), "cpu"), ADAMW, members=3)[name]().to(device).train()


def batches(run: Run, layout: LayoutName, number: int, responses: bool = False) -> list[PreferenceBatch]:
    """Of pairs that are others in each."""
    size, longest = (4, 40) if run.tiny else (8, 512)
    made: list[PreferenceBatch] = []
    for seed in range(number):
        lengths = hh_lengths(size, longest, seed)
        pairs = made_samples(lengths, 512, seed)
        groups = made_samples([(prompt, *two, *two) for prompt, *two in lengths], 512, seed + 1)
        made.append(batch_of(pairs, layout, groups if responses else ()))
    return made
