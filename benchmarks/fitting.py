"""Training as the benchmarks of quality do it: one CPU process, the last weights, nothing written and nothing shown."""

from __future__ import annotations

import time

import lightning as L

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.modules.base import PairwiseRM


def fit(module: PairwiseRM, data: PreferenceDataModule, epochs: int, seed: int = 0) -> float:
    """Train; the processor seconds of it."""
    L.seed_everything(seed, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    start = time.process_time()
    trainer.fit(module, data)
    return time.process_time() - start
