"""One rank of a small training run: `python -m tests.distributed.worker FOLDER STRATEGY RANK WORLD_SIZE PORT`."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_rm.callbacks import HuggingFaceCheckpoint, PairRecorder
from lightning_rm.data.world_tokenizer import world_tokenizer
from lightning_rm.models.sharding import FSDP2Strategy
from lightning_rm.modules.baseline import BaselineRM
from tests.toy import toy_data, toy_model, toy_trainer

PAIRS_A_STEP = 8


def main(folder: Path, strategy: str, rank: int, world_size: int, port: str) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(LOCAL_WORLD_SIZE=str(world_size), GROUP_RANK="0", TORCHELASTIC_RUN_ID="test")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    strategies = {
        "auto": lambda: "auto",
        "ddp": lambda: DDPStrategy(process_group_backend="gloo"),
        "fsdp2": lambda: FSDP2Strategy(process_group_backend="gloo"),
    }
    trainer = toy_trainer(
        folder,
        strategy=strategies[strategy](),
        devices=world_size,
        gradient_clip_val=0.5,
        log_every_n_steps=2,
        callbacks=[
            HuggingFaceCheckpoint(folder / "model", world_tokenizer()),
            PairRecorder(folder / "pairs"),
        ],
    )
    module = BaselineRM(toy_model(), partial(torch.optim.SGD, lr=0.05, momentum=0.9), centering=0.01)
    data = toy_data(26, batch_pairs=PAIRS_A_STEP // world_size, order="random", cache_dir=folder / f"cache{rank}")
    trainer.fit(module, data)
    metrics = dict(trainer.callback_metrics)
    trainer.test(module, data, verbose=False)
    metrics |= trainer.callback_metrics
    if rank == 0:
        values = {name: float(value) for name, value in metrics.items()}
        (folder / "metrics.json").write_text(json.dumps(values))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
