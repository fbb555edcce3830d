"""`python -m tests.matrix`: every module, full and LoRA, in every layout, under every trainer, against one process.

Twenty CPU minutes, so the suite runs a part of it (`distributed/test_two_processes.py`). Words choose modules and
trainers: `python -m tests.matrix meta meta_lora ddp fsdp2`. Ends with 1 where a number is off by more than 1e-12.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, get_args

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_rm.batch import LayoutName
from lightning_rm.callbacks import HuggingFaceCheckpoint
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.sharding import FSDP2Strategy
from tests import methods
from tests.float64 import BOUND, keep_float64
from tests.processes import run_ranks, torchrun_environment
from tests.toy import toy_trainer

WHOLE = (
    *("baseline", "lists", "lm_head", "sft", "strength_aware", "simcse", "swav", "meta", "odin", "response_rank"),
    *("trimmed", "ordinal", "regression", "voters"),
)
MODULES = tuple(chain.from_iterable((name, f"{name}_lora") for name in WHOLE))
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
PAIRS_A_STEP = 8
KINDS: tuple[str, ...] = ("losses", "gradients", "metrics", "weights")
LOOSE = {"length_correlation": 1e-9}
"""Rewards that hardly differ: of sums of squares less the square of a sum five digits are left over, of sixteen."""


class Trainer(NamedTuple):
    """How many ranks of which strategy."""

    ranks: int
    strategy: str


TRAINERS = {
    "one": Trainer(1, "auto"),
    "ddp": Trainer(2, "ddp"),
    "ddp4": Trainer(4, "ddp"),
    "fsdp2": Trainer(2, "fsdp2"),
    "fsdp2x4": Trainer(4, "fsdp2"),
    "fsdp2_offload": Trainer(2, "fsdp2_offload"),
}


class Steps(L.Callback):
    """What each step has: this rank's pairs, all gradients whole and before they are clipped, and what is logged."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.numbers: dict[str, Tensor] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(batch.row[batch.valid.bool()].tolist())

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        for name, parameter in pl_module.named_parameters():
            if (gradient := parameter.grad) is not None:
                whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
                self.numbers[f"gradients {trainer.global_step} {name}"] = whole.clone()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.numbers |= {f"losses {trainer.global_step} {name}": value for name, value in _train(trainer).items()}


def _train(trainer: L.Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.logged_metrics.items() if name.startswith("train/")}


def strategy_of(name: str) -> Any:
    if name == "auto":
        return name
    if name == "ddp":
        return DDPStrategy(process_group_backend="gloo")
    return FSDP2Strategy(process_group_backend="gloo", cpu_offload=name == "fsdp2_offload")


def trains(module: str, trainer: str) -> bool:
    """Whether it does; members of one backbone under FSDP2 are an error that says so."""
    return module not in methods.MEMBERS or not TRAINERS[trainer].strategy.startswith("fsdp2")


def run_all(rank: int, folder: Path, trainer: str, modules: list[str], port: int) -> None:
    """One rank of a training of every module in every layout."""
    torchrun_environment(rank, TRAINERS[trainer].ranks, port)
    torch.set_num_threads(1)
    keep_float64()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", message=".*recommended to use .self.log.*sync_dist=True.*")
    for module in modules:
        for layout in LAYOUTS if trains(module, trainer) else ():
            train(folder / trainer / module / layout, folder / "cache", trainer, module, layout, rank)


def train(folder: Path, cache: Path, name: str, method: str, layout: LayoutName, rank: int) -> None:
    """25 pairs, 8 a step, 7 to validate and to test: nothing divides evenly; what was seen is left in files."""
    ranks, strategy = TRAINERS[name]
    trainer = toy_trainer(
        folder,
        strategy=strategy_of(strategy),
        devices=ranks,
        gradient_clip_val=0.5,
        log_every_n_steps=1,
        callbacks=[HuggingFaceCheckpoint(folder / "model", world_tokenizer()), steps := Steps()],
    )
    module = methods.module_of(method)
    data = methods.data_of(
        method.removesuffix("_lora"),
        cache,
        PAIRS_A_STEP // ranks,
        PAIRS_A_STEP // ranks,
        val=SyntheticSource(7, split="val"),
        test=SyntheticSource(7, split="test", clean_labels=True),
        layout=layout,
        test_responses=SyntheticGroups(5, k=3, split="test"),
    )
    trainer.fit(module, data)
    metrics = dict(trainer.callback_metrics)
    trainer.test(module, data, verbose=False)
    metrics |= trainer.callback_metrics
    numbers = steps.numbers | {f"metrics {key}": value.detach().clone() for key, value in metrics.items()}
    torch.save({"rows": steps.rows, "numbers": numbers}, folder / f"rank{rank}.pt")


def compare(folder: Path, trainer: str, module: str, layout: str) -> tuple[dict[str, float], list[str]]:
    """By how much each kind of number is off at most, and what is missing or another."""
    one, several = (folder / "one" / module / "padded", folder / trainer / module / layout)
    ranks = [torch.load(several / f"rank{rank}.pt", weights_only=True) for rank in range(TRAINERS[trainer].ranks)]
    expected = torch.load(one / "rank0.pt", weights_only=True)
    wrong: list[str] = []
    of_steps = zip(*(rank["rows"] for rank in ranks), strict=True)
    if [sorted(chain(*step)) for step in of_steps] != [sorted(step) for step in expected["rows"]]:
        wrong.append("other pairs in a step")
    exported = [load_file(each / "model" / "last" / "model.safetensors") for each in (one, several)]
    before, after = (
        numbers | {f"weights {name}": value for name, value in weights.items()}
        for numbers, weights in zip((expected["numbers"], ranks[0]["numbers"]), exported, strict=True)
    )
    wrong += [f"{name} on one side alone" for name in before.keys() ^ after.keys()]
    off = dict.fromkeys(KINDS, -1.0)
    for name in before.keys() & after.keys():
        kind, difference = name.split(" ")[0], distance(after[name], before[name])
        bound = LOOSE.get(name.rpartition("/")[2], BOUND)
        off[kind] = max(off[kind], difference if bound == BOUND else 0.0)
        wrong += [f"{name} off by {difference:.1g}"] if not difference <= bound else []
    wrong += [f"nothing to compare of {kind}" for kind, value in off.items() if value < 0]
    for rank in ranks[1:]:
        same = rank["numbers"].keys() == ranks[0]["numbers"].keys()
        if not same or any(distance(rank["numbers"][name], value) for name, value in ranks[0]["numbers"].items()):
            wrong.append("ranks that do not agree")
    return off, wrong


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to numbers above 1; NaN is NaN."""
    if found.shape != expected.shape:
        return float("inf")
    off = (found.double() - expected.double()).abs() / expected.double().abs().clamp(min=1.0)
    return float(off.where(~(found.isnan() & expected.isnan()), 0.0).nan_to_num(nan=float("inf")).max())


def report(folder: Path, trainer: str, modules: list[str]) -> int:
    """Print a line a module; how many trainings went wrong."""
    failed = 0
    for module in modules:
        if not trains(module, trainer):
            continue
        off: dict[str, float] = {}
        wrong: list[str] = []
        for layout in LAYOUTS:
            found, other = compare(folder, trainer, module, layout)
            off = {kind: max(value, off.get(kind, 0.0)) for kind, value in found.items()}
            wrong += [f"{layout}: {each}" for each in other]
            failed += bool(other)
        numbers = ", ".join(f"{kind} {value:.0e}" for kind, value in sorted(off.items()))
        print(f"{trainer} {module}: {numbers}", *wrong[:8], sep="\n    ", flush=True)
    return failed


def main(words: list[str]) -> int:
    modules = [name for name in words if name in MODULES] or list(MODULES)
    trainers = [name for name in words if name in TRAINERS] or list(TRAINERS)
    if unknown := [word for word in words if word not in (*MODULES, *TRAINERS)]:
        raise SystemExit(f"{unknown[0]} is neither a module ({', '.join(MODULES)}) nor of {', '.join(TRAINERS)}")
    failed, begin = 0, time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for trainer in dict.fromkeys(("one", *trainers)):
            run_ranks(run_all, TRAINERS[trainer].ranks, folder, trainer, modules)
            failed += report(folder, trainer, modules)
    number = sum(trains(module, trainer) for module in modules for trainer in trainers) * len(LAYOUTS)
    print(f"{number} trainings, {failed} of them not one process's; {time.time() - begin:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
