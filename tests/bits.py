"""`python -m tests.bits`: every module, full and LoRA, in every layout and on streamed shards: the same bits twice.

A run, the same run again, and what is left of it from a checkpoint within its second epoch, in float32, with dropout
where a method draws it: weights and losses are compared bit for bit. Minutes, so the suite holds one layout a module
to it (`modules/test_every_method.py`, `callbacks/test_resume.py`). Words choose modules.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lightning_rm.callbacks import CheckpointFiles, ResumeCheckpoint
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.synthetic.pairs import SyntheticSource
from tests import methods
from tests.matrix import LAYOUTS, MODULES
from tests.thrift import be_thrifty
from tests.toy import LossRecorder, toy_trainer, weights

ADAMW = partial(torch.optim.AdamW, lr=1e-2)
STREAMED = ("baseline", "lm_head", "sft", "simcse", "swav", "odin", "trimmed")
"""Those that read pairs alone, without strengths or lists."""
STEPS, SAVED_AT = 10, 8
"""An epoch has six."""


def run(method: str, folder: Path, seed: int, resume: Path | None = None, **options: Any) -> dict[str, Any]:
    """The losses of a run, or of the rest of one, and its last weights."""
    L.seed_everything(seed, verbose=False)
    module = methods.module_of(method, "float32", ADAMW)
    data = methods.data_of(method.removesuffix("_lora"), folder, 4, 4, **options)
    losses = LossRecorder()
    trainer = toy_trainer(
        folder,
        max_epochs=2,
        max_steps=STEPS,
        limit_val_batches=0,
        callbacks=[losses, ResumeCheckpoint(folder / "resume.ckpt", SAVED_AT)] if resume is None else [losses],
        plugins=[CheckpointFiles()],
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return {"losses": losses.losses, "weights": weights(module)}


def compare(method: str, **options: Any) -> str:
    """Say what differs; nothing where all is the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = run(method, folder, 1, **options)
        again = run(method, folder, 1, **options)
        rest = run(method, folder, 999, folder / "resume.ckpt", **options)
    wrong = [
        what
        for what, other, begun in (("again", again, 0), ("resumed", rest, SAVED_AT))
        if whole["losses"][begun:] != other["losses"] or not equal(whole["weights"], other["weights"])
    ]
    return " and ".join(wrong)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def shards(folder: Path) -> ParquetShards:
    """24 pairs in two files."""
    rows = list(SyntheticSource(24, split="train"))
    columns = {name: [getattr(row, name) for row in rows] for name in ("prompt", "chosen", "rejected")}
    for number in range(2):
        part = {name: values[number * 12 : number * 12 + 12] for name, values in columns.items()}
        pq.write_table(pa.table(part), folder / f"s{number}.parquet", row_group_size=4)
    return ParquetShards(f"{folder}/s*.parquet")


def main(words: list[str]) -> int:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    be_thrifty()
    number = failed = 0
    for method in words or [*MODULES, *methods.SECOND_ORDER]:
        rows = methods.training_rows(method.removesuffix("_lora"), 24)
        cases: dict[str, dict[str, Any]] = {layout: {"layout": layout, "train": rows} for layout in LAYOUTS}
        with tempfile.TemporaryDirectory() as name:
            if method in STREAMED:
                cases["streamed"] = {"layout": "packed", "train": shards(Path(name))}
            for case, options in cases.items():
                wrong = compare(method, **options)
                number, failed = number + 1, failed + bool(wrong)
                print(f"{method} {case}: {f'differs {wrong}' if wrong else 'the same bits'}", flush=True)
    print(f"{number} trainings, each run twice and resumed; {failed} differ")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
