"""Ctrl-C that reaches one of two ranks stops both before the same batch, with a checkpoint that goes on exactly."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_rm.callbacks import CheckpointFiles, ResumeCheckpoint, Stop
from lightning_rm.callbacks.checkpoint_files import read_checkpoint
from tests.toy import LossRecorder, toy_data, toy_module, toy_trainer


class Send(L.Callback):
    """Sends Ctrl-C to one rank in its n-th batch, or several times."""

    def __init__(self, rank: int, batch: int, times: int) -> None:
        self.rank, self.batch, self.times = rank, batch, times

    def on_before_backward(self, trainer: L.Trainer, *_: Any) -> None:
        if (trainer.global_rank, trainer.fit_loop.epoch_loop.batch_idx) == (self.rank, self.batch):
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def worker(folder: Path, rank: int, port: int, options: dict[str, Any]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
    torch.set_num_threads(1)
    stop, losses = Stop(), LossRecorder()
    checkpoint = ResumeCheckpoint(folder / "checkpoints" / "resume.ckpt", options.get("every"))
    callbacks: list[L.Callback] = [stop, checkpoint, losses]
    if options["times"]:
        callbacks.append(Send(options["rank"], 1, options["times"]))
    trainer = toy_trainer(
        folder,
        strategy=DDPStrategy(process_group_backend="gloo"),
        devices=2,
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
    )
    code = 0
    try:
        data = toy_data(40, batch_pairs=2, cache_dir=folder / "cache")
        trainer.fit(toy_module(), data, ckpt_path=options.get("resume"), weights_only=True)
    except SystemExit:
        code = stop.exit_code
    except BaseException:
        code = 1
    (folder / f"rank{rank}.json").write_text(json.dumps({"code": code, "losses": losses.losses}))
    os._exit(code)  # what pytest has open is the parent's


def launch(folder: Path, **options: Any) -> list[dict[str, Any]]:
    """What two forks of this process have to say."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=worker, args=(folder, rank, port, {"times": 0, **options})) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode is not None, "a rank hangs"
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_a_signal_to_one_rank_stops_both_before_the_same_batch(tmp_path: Path) -> None:
    """Asked in the second batch: told with the third, done before the fourth. The rest is what it would have been."""
    whole = launch(tmp_path / "whole")
    stopped = launch(tmp_path / "stopped", rank=1, times=1)
    assert [rank["code"] for rank in stopped] == [130, 130]
    assert [len(rank["losses"]) for rank in stopped] == [3, 3]
    checkpoint = tmp_path / "stopped" / "checkpoints" / "resume.ckpt"
    assert read_checkpoint(checkpoint)["global_step"] == 3
    rest = launch(tmp_path / "stopped", resume=checkpoint)
    for before, after, all_of in zip(stopped, rest, whole, strict=True):
        assert before["losses"] + after["losses"] == all_of["losses"]


def test_a_stop_at_once_saves_nothing_and_hangs_nowhere(tmp_path: Path) -> None:
    """The rank that is left alone finds its peer gone; the checkpoint of the step before stays."""
    ended = launch(tmp_path / "run", rank=0, times=2, every=1)
    assert (ended[0]["code"], ended[1]["code"]) == (130, 1)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "resume.ckpt")["global_step"] == 1
