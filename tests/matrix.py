"""`python -m tests.matrix`: every module, full and LoRA, in every layout, under every trainer, against one process.

Twenty CPU minutes, so the suite runs a part of it (`distributed/test_two_processes.py`). Words choose modules and
trainers: `python -m tests.matrix meta meta_lora ddp fsdp2`. Ends with 1 where a number is off by more than 1e-12; under
DeepSpeed's ZeRO, which computes in float32 and takes part where it is installed, by more than `FLOAT32`.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, get_args

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_rm.batch import LayoutName
from lightning_rm.callbacks import HuggingFaceCheckpoint
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.sharding import FSDP2Strategy
from lightning_rm.models.zero import ZeroStrategy
from lightning_rm.modules.contrast import SwAV
from tests import methods
from tests.distributed import zero_worker
from tests.float64 import BOUND, LOOSE, keep_float64
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
FLOAT32 = {"losses": 1e-5, "gradients": 2e-4, "metrics": 1e-4, "weights": 1e-6}
"""Bounds where a trainer computes in float32, as DeepSpeed does: layouts of one process differ by up to a fifth."""


class Trainer(NamedTuple):
    """How many ranks of which strategy, in which type, and the one process that they must equal."""

    ranks: int
    strategy: str
    dtype: str = "float64"
    beside: str = "one"


def zero(ranks: int, strategy: str) -> Trainer:
    return Trainer(ranks, strategy, "float32", "one_float32")


TRAINERS = {
    "one": Trainer(1, "auto"),
    "one_float32": Trainer(1, "auto", "float32", "one_float32"),
    "ddp": Trainer(2, "ddp"),
    "ddp4": Trainer(4, "ddp"),
    "fsdp2": Trainer(2, "fsdp2"),
    "fsdp2x4": Trainer(4, "fsdp2"),
    "fsdp2_offload": Trainer(2, "fsdp2_offload"),
    "zero2": zero(2, "zero2"),
    "zero3": zero(2, "zero3"),
    "zero3x4": zero(4, "zero3"),
    "zero3_offload": zero(2, "zero3_offload"),
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
            if (gradient := gradient_of(trainer, parameter)) is not None:
                whole = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
                self.numbers[f"gradients {trainer.global_step} {name}"] = whole.clone()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.numbers |= {f"losses {trainer.global_step} {name}": value for name, value in _train(trainer).items()}


def gradient_of(trainer: L.Trainer, parameter: nn.Parameter) -> Tensor | None:
    """A gradient as an optimizer would have it on one process, sharded or whole; DeepSpeed's is asked for."""
    if not isinstance(trainer.strategy, ZeroStrategy):
        return parameter.grad
    return import_module("deepspeed.utils").safe_get_full_grad(parameter) if parameter.requires_grad else None


def _train(trainer: L.Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.logged_metrics.items() if name.startswith("train/")}


def strategy_of(name: str) -> Any:
    if name == "auto":
        return name
    if name == "ddp":
        return DDPStrategy(process_group_backend="gloo")
    if name.startswith("zero"):
        return zero_worker.strategy_of(int(name[4]), offload=name.endswith("offload"))
    return FSDP2Strategy(process_group_backend="gloo", cpu_offload=name == "fsdp2_offload")


def trains(module: str, trainer: str) -> bool:
    """Whether it does; others are an error that says so: members, MetaRM and ODIN where weights are not whole."""
    strategy = TRAINERS[trainer].strategy
    refused = methods.MEMBERS if strategy.startswith(("fsdp2", "zero3")) else ()
    begins = {"zero2": ("meta",), "zero3": ("meta", "odin")}.get(
        strategy[:5], ("meta",) if trainer == "one_float32" else ()
    )
    return module not in refused and not module.startswith(begins)


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
    ranks, strategy, dtype, _ = TRAINERS[name]
    best = HuggingFaceCheckpoint(folder / "model", world_tokenizer(), *methods.monitor_of(method))
    trainer = toy_trainer(
        folder,
        strategy=strategy_of(strategy),
        devices=ranks,
        gradient_clip_val=0.5,
        log_every_n_steps=1,
        callbacks=[best, steps := Steps()],
    )
    module = methods.module_of(method, dtype, fixed_views=True)
    for part in module.modules():
        if isinstance(part, SwAV) and dtype == "float32":
            part.frozen = 0.0  # DeepSpeed has no gradient that could be forgotten: an error
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
    one, several = (folder / TRAINERS[trainer].beside / module / "padded", folder / trainer / module / layout)
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
        loose = LOOSE.get(name.rpartition("/")[2])
        bound = (loose or BOUND) if TRAINERS[trainer].dtype == "float64" else FLOAT32[kind] * (100 if loose else 1)
        off[kind] = max(off[kind], 0.0 if loose else difference)
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


def runs_here(trainer: str) -> bool:
    """Whether it does where nothing but its ranks is asked for: DeepSpeed is an extra."""
    return TRAINERS[trainer].strategy[:4] != "zero" or find_spec("deepspeed") is not None


def main(words: list[str]) -> int:
    modules = [name for name in words if name in MODULES] or list(MODULES)
    trainers = [name for name in words if name in TRAINERS] or [name for name in TRAINERS if runs_here(name)]
    if unknown := [word for word in words if word not in (*MODULES, *TRAINERS)]:
        raise SystemExit(f"{unknown[0]} is neither a module ({', '.join(MODULES)}) nor of {', '.join(TRAINERS)}")
    failed, begin = 0, time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for trainer in dict.fromkeys((*(TRAINERS[each].beside for each in trainers), *trainers)):
            run_ranks(run_all, TRAINERS[trainer].ranks, folder, trainer, modules)
            failed += report(folder, trainer, modules)
    number = sum(trains(module, trainer) for module in modules for trainer in trainers) * len(LAYOUTS)
    print(f"{number} trainings, {failed} of them not one process's; {time.time() - begin:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
