"""A signal that reaches one of two ranks, or both, stops both before the same batch, with a checkpoint that goes on
exactly."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_rm.callbacks import CheckpointFiles, ResumeCheckpoint, Stop
from lightning_rm.callbacks.checkpoint_files import read_checkpoint
from lightning_rm.digests import fingerprint
from tests.processes import warm_up
from tests.toy import LossRecorder, toy_data, toy_module, toy_trainer


class Send(L.Callback):
    """Sends some ranks a signal, once or several times, when a hook is called for the n-th time."""

    def __init__(self, hook: str, call: int, ranks: tuple[int, ...], number: signal.Signals, times: int = 1) -> None:
        self.left, self.ranks, self.number, self.times = call, ranks, number, times
        setattr(self, hook, self._called)

    def _called(self, trainer: L.Trainer, *rest: Any) -> None:
        self.left -= 1
        if trainer.global_rank in self.ranks and self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def worker(folder: Path, rank: int, port: int, options: dict[str, Any]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
    torch.set_num_threads(1)
    stop, losses, module = Stop(), LossRecorder(), toy_module()
    checkpoint = ResumeCheckpoint(folder / "checkpoints" / "resume.ckpt", options.get("every"))
    callbacks: list[L.Callback] = [stop, checkpoint, losses]
    if "send" in options:
        callbacks.append(Send(*options["send"]))
    trainer = toy_trainer(
        folder,
        strategy=DDPStrategy(process_group_backend="gloo"),
        devices=2,
        callbacks=callbacks,
        max_epochs=2,
        plugins=[CheckpointFiles()],
    )
    code = 0
    try:
        data = toy_data(40, batch_pairs=2, cache_dir=folder / "cache")
        trainer.fit(module, data, ckpt_path=options.get("resume"), weights_only=True)
    except SystemExit:
        code = stop.exit_code
    except BaseException:
        code = 1
    weights = {name: value.tolist() for name, value in module.state_dict().items()}
    told = {"code": code, "losses": losses.losses, "weights": fingerprint(weights=weights)}
    (folder / f"rank{rank}.json").write_text(json.dumps(told))
    os._exit(code)  # what pytest has open is the parent's


def launch(folder: Path, **options: Any) -> list[dict[str, Any]]:
    """What two forks of this process have to say."""
    folder.mkdir(exist_ok=True)
    warm_up()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=worker, args=(folder, rank, port, options)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode is not None, "a rank hangs"
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_signals_stop_both_ranks_before_the_same_batch_and_runs_go_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run is stopped three times: by SIGTERM to one rank in its second batch (told with the third, done before the
    fourth), by Slurm's notice to both in a validation, and by SIGTERM to rank 1 while the others write a checkpoint."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    whole = launch(tmp_path / "whole")
    checkpoint = tmp_path / "stopped" / "checkpoints" / "resume.ckpt"
    losses: list[list[float]] = [[], []]
    for hook, call, ranks, number, step in (
        ("on_before_backward", 2, (1,), signal.SIGTERM, 3),
        ("on_validation_batch_start", 1, (0, 1), signal.SIGUSR1, 10),
        ("on_save_checkpoint", 1, (1,), signal.SIGTERM, 14),
    ):
        resume = checkpoint if checkpoint.exists() else None
        stopped = launch(tmp_path / "stopped", send=(hook, call, ranks, number), resume=resume, every=12)
        assert [rank["code"] for rank in stopped] == [128 + number] * 2
        assert read_checkpoint(checkpoint)["global_step"] == step
        losses = [[*before, *after["losses"]] for before, after in zip(losses, stopped, strict=True)]
    rest = launch(tmp_path / "stopped", resume=checkpoint)
    for before, after, all_of in zip(losses, rest, whole, strict=True):
        assert [*before, *after["losses"]] == all_of["losses"]
        assert after["weights"] == all_of["weights"]


def test_a_stop_at_once_saves_nothing_and_hangs_nowhere(tmp_path: Path) -> None:
    """The rank that is left alone finds its peer gone; the checkpoint of the step before stays."""
    ended = launch(tmp_path / "run", send=("on_before_backward", 2, (0,), signal.SIGINT, 2), every=1)
    assert (ended[0]["code"], ended[1]["code"]) == (130, 1)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "resume.ckpt")["global_step"] == 1
