"""One rank of a run of each method."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_rm.batch import LayoutName
from lightning_rm.callbacks import Benchmarks, HuggingFaceCheckpoint, PairRecorder
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.sharding import FSDP2Strategy
from lightning_rm.modules.spikes import GradientSpikes
from tests import methods
from tests.evaluation.made import llmbar
from tests.float64 import keep_float64
from tests.processes import torchrun_environment
from tests.toy import toy_trainer

METHODS = (*methods.METHODS, "baseline_by_2", "meta_by_2", "baseline_frozen", "meta_frozen")
"""What ends in `_by_2` accumulates two micro-batches a step; its last step has one, of one pair. What ends in `_frozen`
trains the second layer of two and the head."""
TWO = (
    *("baseline", "swav", "meta_by_2", "baseline_frozen"),
    *("lm_head", "sft", "simcse", "lists", "trimmed", "lora", "strength_aware", "simcse_lora", *methods.MEMBERS),
)
"""Methods under DDP on two: the three that are tested there, and those that leave weights out or look over a batch."""
FOUR = ("baseline_by_2", "swav", "odin", "response_rank", "meta_by_2")
"""Methods under DDP on four, which have other parts of a batch than two."""
TESTED = TWO[:3]
"""Methods with all that there is about a training: validations before and within it, records of pairs, a test after."""
NUM_PAIRS = 17
"""Three steps, of which the last has one pair: other ranks have a filler."""
PAIRS_A_STEP = 8
GROUPS_A_STEP = 8
LAYOUTS: dict[int, LayoutName] = {1: "padded", 2: "shared_prefix", 4: "packed"}
"""Of so many processes: a layout changes nothing either."""
RANKS = {"auto": 1, "ddp": 2, "fsdp2": 2, "ddp4": 4}


class Rows(L.Callback):
    """The training pairs of each step, of this rank."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.rows.append([])
        self.rows[-1] += batch.row[batch.valid.bool()].tolist()


def methods_of(strategy: str) -> tuple[str, ...]:
    """All on one process; under FSDP2 on two, but for members and two; under DDP on two the others among them."""
    if strategy in ("ddp", "ddp4"):
        return TWO if strategy == "ddp" else FOUR
    if strategy == "fsdp2":
        return tuple(method for method in METHODS if method not in ("strength_aware", "simcse_lora"))
    return (*METHODS, *methods.MEMBERS)


def is_tested(strategy: str, method: str) -> bool:
    """Whether a run is tested after its training: all on one process, some on two."""
    return strategy == "auto" or (strategy == "ddp" and method in TESTED)


def run_all(rank: int, folder: Path, cache: Path, strategy: str, port: int) -> None:
    """A run of every method, in folders of their names, on data that the first strategy prepares for all."""
    world_size = RANKS[strategy]
    torchrun_environment(rank, world_size, port)
    torch.set_num_threads(1)
    keep_float64()
    warnings.filterwarnings("error", message=".*recommended to use .self.log.*sync_dist=True.*")
    for method in methods_of(strategy):
        run(folder / method, cache, strategy, method, rank, world_size)
    spikes = GradientSpikes(2.0)
    for step in range(21):
        spikes.see(step, 30.0 if step == 20 else 1.0, [torch.tensor([rank, -1]), torch.tensor([10] * rank)])
    state = spikes.state(torch.device("cpu"))
    (folder / f"spikes{rank}.json").write_text(json.dumps(state["kept"]))


def run(folder: Path, cache: Path, strategy: str, method: str, rank: int, world_size: int) -> None:
    strategies = {
        "auto": lambda: "auto",
        "ddp": lambda: DDPStrategy(process_group_backend="gloo"),
        "ddp4": lambda: DDPStrategy(process_group_backend="gloo"),
        "fsdp2": lambda: FSDP2Strategy(process_group_backend="gloo"),
    }
    accumulate = 2 if method.endswith("_by_2") else 1
    tests = is_tested(strategy, method)
    trainer = toy_trainer(
        folder,
        strategy=strategies[strategy](),
        devices=world_size,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.5,
        num_sanity_val_steps=int(tests and method in TESTED),
        val_check_interval=2 if method in TESTED else 1.0,
        log_every_n_steps=2,
        callbacks=[
            HuggingFaceCheckpoint(folder / "model", world_tokenizer(), *methods.monitor_of(method)),
            rows := Rows(),
            *([PairRecorder(folder / "pairs")] if method in TESTED else []),
            *([Benchmarks({"llmbar": llmbar(folder / f"llmbar{rank}")})] if method == "baseline" else []),
        ],
    )
    module = methods.module_of(method)
    data = methods.data_of(
        method,
        cache,
        PAIRS_A_STEP // (world_size * accumulate),
        GROUPS_A_STEP // (world_size * accumulate),
        train=methods.training_rows(method, NUM_PAIRS),
        val=SyntheticSource(7, split="val"),
        test=SyntheticSource(7, split="test", clean_labels=True),
        layout=LAYOUTS[world_size],
        test_responses=SyntheticGroups(5, k=3, split="test"),
    )
    trainer.fit(module, data)
    metrics = dict(trainer.callback_metrics)
    if tests:
        trainer.test(module, data, verbose=False)
    metrics |= trainer.callback_metrics
    values = {name: float(value) for name, value in metrics.items()}
    (folder / f"metrics{rank}.json").write_text(json.dumps(values))
    (folder / f"rows{rank}.json").write_text(json.dumps(rows.rows))
