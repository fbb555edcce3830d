"""One rank of a run by DeepSpeed's ZeRO, or of one that goes on from it by another strategy."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightning_rm.callbacks import Benchmarks, CheckpointFiles, HuggingFaceCheckpoint, LastCheckpoint
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.zero import ZeroStrategy
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import warmup_schedule
from tests.evaluation.made import llmbar
from tests.processes import torchrun_environment
from tests.toy import toy_data, toy_model, toy_trainer

PAIRS_A_STEP = 8
ALL_IN_PARTS = {"stage3_param_persistence_threshold": 0, "reduce_bucket_size": 5000}
"""Of a toy's weights all would be kept whole; and gradients leave in several buckets."""


def strategy_of(stage: int, offload: bool = False) -> ZeroStrategy:
    return ZeroStrategy(stage, offload, ALL_IN_PARTS, "gloo")


def fit(folder: Path, world_size: int, epochs: int, resume: Path | None = None, **options: Any) -> dict[str, float]:
    """Train on 25 pairs, two micro-batches a step (the last has one, of one pair), measure the last checkpoint; its
    metrics.
    """
    trainer = toy_trainer(
        folder,
        max_epochs=epochs,
        devices=world_size,
        gradient_clip_val=0.5,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
        callbacks=[
            HuggingFaceCheckpoint(folder / "model", world_tokenizer()),
            LastCheckpoint(folder / "checkpoints"),
            Benchmarks({"llmbar": llmbar(folder / f"llmbar{options.pop('rank', 0)}")}),
        ],
        plugins=[CheckpointFiles()],
        enable_checkpointing=True,
        **options,
    )
    # A large epsilon: of gradients that are nearly 0 AdamW would make whole steps of rounding.
    optimizer = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, eps=1e-3, fused=True)
    schedule = partial(warmup_schedule, name="constant_with_warmup", warmup=2)
    module = BaselineRM(toy_model(), optimizer, schedule, head_lr=2e-2, centering=0.01)
    data = toy_data(25, batch_pairs=PAIRS_A_STEP // 2 // world_size, order="random", cache_dir=folder.parent / "cache")
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    metrics = dict(trainer.callback_metrics)
    trainer.test(module, data, ckpt_path=folder / "checkpoints" / "last.ckpt", weights_only=True, verbose=False)
    return {name: float(value) for name, value in (metrics | trainer.callback_metrics).items()}


def run(rank: int, folder: Path, world_size: int, runs: dict[str, dict[str, Any]], port: int) -> None:
    """Several runs in one process: name -> stage, epochs and the checkpoint that it goes on from."""
    torchrun_environment(rank, world_size, port)
    torch.set_num_threads(1)
    for name, how in runs.items():
        resume = folder / how["resume"] if "resume" in how else None
        strategy = strategy_of(how["stage"], how.get("offload", False))
        precision = how.get("precision", "32-true")
        metrics = fit(
            folder / name, world_size, how["epochs"], resume, strategy=strategy, precision=precision, rank=rank
        )
        (folder / name / f"metrics{rank}.json").write_text(json.dumps(metrics))
