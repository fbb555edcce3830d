"""`RayWorkers`: `score_shards` by the workers of a Ray cluster, which need no folder in common with this process.

This process reads, tokenises and writes the parts; workers are sent token ids and, once each, the model. So the parts
are those of `score_shards`, whoever made them: what one engine has begun, the other one finishes. It knows shards and
Ray, which is imported when the workers are asked for; no file but the parts.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.models.attention.segments import register_segment_attention
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.parts import Part, Parts
from lightning_rm.scoring.shards import Found, Progress, Shard, score_shard

AHEAD = 2
"""Shards that a worker has been sent at most: it does not wait for the next one."""

RETRIES = 3
"""Times that a shard is scored again whose worker was lost; the worker itself is always started again."""


class RayWorkers:
    """Workers of a Ray cluster, or of this machine alone where there is none; called like `score_shards`.

    Args:
        workers: how many; None for as many as there is room for.
        accelerator: of each: `cpu` asks for as many cores as this process computes with, so that rewards are the same
            to the last bit; `gpu` for one GPU; `auto` for one where the cluster has any.
    """

    def __init__(self, workers: int | None = 1, accelerator: str = "auto") -> None:
        self._ray = ray_module()
        self._workers = workers
        self._accelerator = accelerator
        self._actors: list[Any] = []
        self._is_ours = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors.clear()
        if self._is_ours:
            self._ray.shutdown()

    def __call__(
        self,
        load: Callable[[], AnyRewardModel],
        shards: Iterable[Shard],
        parts: Parts,
        *,
        fabric: L.Fabric,
        layout: LayoutSetting = "auto",
        batch_tokens: int | None = None,
        each_member: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Score the shards that are not done yet, and write each one's part.

        Args:
            load: gives the model; called here when the first shard is sent.
            shards: the stream, which is read here.
            parts: where the parts go, written here.
            fabric: this process; workers compute in its precision.
            layout: as in `score_shards`.
            batch_tokens: as there.
            each_member: as there.
            progress: called with each shard when it is done.

        Raises:
            ValueError: as `score_shards` does, for the same conversation; if there is no room for the workers, or one
                was lost with the same shard each time.
        """
        sent: dict[Any, tuple[Shard, int]] = {}
        errors: dict[int, Exception] = {}
        waiting: list[int] = []  # shards that each worker has been sent
        model: Any = None

        def take() -> None:
            """Wait for a shard that is sent, and write its part."""
            (done,), _ = self._ray.wait(list(sent))
            shard, worker = sent.pop(done)
            waiting[worker] -= 1
            try:
                parts.write(shard.number, self._part(done, shard))
            except ValueError as error:
                errors[shard.number] = error
                return
            if progress is not None:
                progress(shard, shard.size)

        for shard in shards:
            if errors:
                break
            if parts.has(shard.number):
                if progress is not None:
                    progress(shard, shard.size)
                continue
            if model is None:
                loaded = load()
                self._start(str(fabric.strategy.precision.precision))
                waiting = [0] * len(self._actors)
                model = self._ray.put(loaded)
            found = shard.sequences()
            names = [shard.name(place) for place in range(shard.size)]
            while len(sent) >= AHEAD * len(self._actors):
                take()
            worker = waiting.index(min(waiting))
            # The model in a list: Ray would send it anew with each shard in place of its address.
            task = self._actors[worker].score.remote([model], found, names, layout, batch_tokens, each_member)
            sent[task] = shard, worker
            waiting[worker] += 1
        while sent:  # after an error too: it may not be the first in the file
            take()
        if errors:
            raise errors[min(errors)]

    def _part(self, task: Any, shard: Shard) -> Part:
        """Return what a worker made of a shard.

        Raises:
            ValueError: as a worker raised it, or of a worker that was lost.
        """
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError as error:
            why = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{shard.name(0)} and the {shard.size - 1:,} conversations after it: the Ray worker that had them was "
                f"lost {RETRIES + 1} times ({why}). What is scored is kept: run the same "
                "command to go on; a smaller batch_tokens needs less memory"
            ) from None

    def _start(self, precision: str) -> None:
        """Start the workers, unless they are there."""
        if self._actors:
            return
        if not self._ray.is_initialized():
            handler = signal.getsignal(signal.SIGTERM)
            self._is_ours = True
            # Left to itself, Ray waits long for a cluster that was here last.
            address = os.environ.get("RAY_ADDRESS") or "local"
            self._ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray has put its own in place of it
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = int(sum(machine.get("GPU", 0) for machine in machines))
        on_gpu = self._accelerator in ("gpu", "cuda") or (self._accelerator == "auto" and gpus > 0)
        threads = torch.get_num_threads()
        room = gpus if on_gpu else sum(int(machine.get("CPU", 0) // threads) for machine in machines)
        workers = self._workers or room
        if on_gpu and not room:
            raise ValueError("accelerator=gpu: the Ray cluster has no GPU; say cpu, or auto for what it has")
        if not workers or workers > room:
            raise ValueError(
                f"devices={workers}: the Ray cluster has room for {room} workers of "
                f"{'one GPU' if on_gpu else f'{threads} cores'} each; ask for fewer"
                + ("" if on_gpu else f", or set OMP_NUM_THREADS below {threads}")
            )
        scorer = self._ray.remote(_Scorer)
        resources = {"num_cpus": 1, "num_gpus": 1} if on_gpu else {"num_cpus": threads}
        options = {"max_restarts": -1, "max_task_retries": RETRIES, **resources}
        accelerator = "gpu" if on_gpu else "cpu" if self._accelerator == "auto" else self._accelerator
        self._actors = [scorer.options(**options).remote(accelerator, precision, threads) for _ in range(workers)]


class _Scorer:
    """A worker: it has one model at a time, and scores what it is sent."""

    def __init__(self, accelerator: str, precision: Any, threads: int) -> None:
        torch.set_num_threads(threads)
        register_segment_attention()  # what a model of another process may have been made for
        # Ranks that a cluster's environment names are not this worker's.
        self.fabric = L.Fabric(
            accelerator=accelerator, devices=1, precision=precision, plugins=[LightningEnvironment()]
        )
        self.held: Any = None
        self.model: AnyRewardModel | None = None

    def score(
        self,
        held: list[Any],
        found: Found,
        names: Sequence[str],
        layout: LayoutSetting,
        batch_tokens: int | None,
        each_member: bool,
    ) -> Part:
        model = self._model_of(held[0])
        shard = Shard(0, len(found), lambda: found, names.__getitem__)
        with self.fabric.autocast():
            return score_shard(model, shard, found, layout, batch_tokens, each_member)

    def _model_of(self, held: Any) -> AnyRewardModel:
        if self.model is not None and held == self.held:
            return self.model
        self.model = None  # before the next one comes
        model: AnyRewardModel = ray_module().get(held)
        self.fabric.to_device(model)
        self.model, self.held = model, held
        return model


def ray_module() -> Any:
    """Return Ray.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ValueError("engine='ray' needs Ray: pip install 'lightning-rm[ray]'") from None
