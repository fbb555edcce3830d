"""One rank of a run whose checkpoints are shards, or of one that goes on from them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lightning_rm.callbacks import CheckpointFiles, HuggingFaceCheckpoint, LastCheckpoint, ResumeCheckpoint
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.sharding import FSDP2Strategy
from lightning_rm.modules.baseline import BaselineRM
from tests.float64 import keep_float64
from tests.processes import torchrun_environment
from tests.toy import LossRecorder, toy_data, toy_model, toy_trainer

PAIRS_A_STEP = 8


def fit(folder: Path, world_size: int, epochs: int, resume: Path | None = None, **options: Any) -> list[float]:
    """Train and export; this rank's losses."""
    losses = LossRecorder()
    callbacks: list[L.Callback] = [losses, HuggingFaceCheckpoint(folder / "model", world_tokenizer())]
    if world_size == 2:
        callbacks += [LastCheckpoint(folder / "checkpoints"), ResumeCheckpoint(folder / "checkpoints/resume.ckpt", 2)]
    trainer = toy_trainer(
        folder,
        max_epochs=epochs,
        devices=world_size,
        gradient_clip_val=0.5,
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        enable_checkpointing=world_size == 2,
        **options,
    )
    module = BaselineRM(toy_model(dtype="float64"), partial(torch.optim.AdamW, lr=1e-2), centering=0.01)
    data = toy_data(24, batch_pairs=PAIRS_A_STEP // world_size, order="random", cache_dir=folder / "cache")
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return losses.losses


def run(rank: int, folder: Path, world_size: int, starts: dict[str, tuple[int, str | None]], port: int) -> None:
    """Several runs in one process: name -> epochs, and the checkpoint that it goes on from."""
    torchrun_environment(rank, world_size, port)
    torch.set_num_threads(1)
    keep_float64()
    for name, (epochs, resume) in starts.items():
        strategy = FSDP2Strategy(save_distributed_checkpoint=True, process_group_backend="gloo")
        fit(folder / name, world_size, epochs, None if resume is None else folder / resume, strategy=strategy)


def measure_twice(rank: int, folder: Path, port: int) -> None:
    """Train with weights on the host, and measure the checkpoint twice, which leaves whole weights of the root."""
    torchrun_environment(rank, 1, port)
    strategy = FSDP2Strategy(cpu_offload=True, process_group_backend="gloo")
    kept = LastCheckpoint(folder)
    trainer = toy_trainer(
        folder,
        max_epochs=1,
        devices=1,
        strategy=strategy,
        callbacks=[kept],
        plugins=[CheckpointFiles()],
        enable_checkpointing=True,
    )
    module = BaselineRM(toy_model(), partial(torch.optim.AdamW, lr=1e-2))
    data = toy_data(8, cache_dir=folder / "cache")
    trainer.fit(module, data)
    measured = [
        trainer.validate(module, datamodule=data, ckpt_path=folder / "last.ckpt", weights_only=True, verbose=False)
        for _ in range(2)
    ]
    (folder / "measured.json").write_text(json.dumps(measured))
