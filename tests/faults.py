"""`python -m tests.faults`: for every module a loss and a gradient that are not finite, on one rank alone, and a spike.

Every module, full and LoRA, on one process and on two of `ddp`, `fsdp2` and, where DeepSpeed is installed, its `zero2`
and `zero3`: the step changes no weight on any rank, is named there with its pairs, and ends all ranks where
`max_skipped=1`; a spike is kept with the pairs of all ranks.
Minutes, so the suite holds one process to it (`modules/test_every_method.py`). Words choose modules and trainers.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import tempfile
import warnings
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lightning_rm.batch import PreferenceBatch, RewardOutput
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrast import SwAV
from lightning_rm.modules.finite import DivergedError
from lightning_rm.modules.gradients import local
from tests import methods
from tests.matrix import MODULES, TRAINERS, runs_here, strategy_of
from tests.matrix import trains as shards
from tests.processes import run_ranks, torchrun_environment
from tests.thrift import be_thrifty
from tests.toy import toy_trainer

BAD_LOSS, BAD_GRADIENT, SPIKE, STEPS = 2, 4, 23, 25
ADAMW = partial(torch.optim.AdamW, lr=1e-3)
ON = ("one", "ddp", "fsdp2", "zero2", "zero3")
PAIRS_A_STEP = 4
COUNTS = {"skipped_steps": 2, "gradient_spikes": 1}


class Scaled(torch.autograd.Function):
    """A loss as it is, with another gradient."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


class Faults(L.Callback):
    """Spoils three steps on the last rank, and remembers this rank's weights and pairs of each step."""

    def __init__(self, is_last: bool) -> None:
        self.is_last = is_last
        self.weights: list[list[Tensor]] = []
        self.rows: list[list[int]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PairwiseRM)
        losses = pl_module.losses

        def spoilt(batch: PreferenceBatch, output: RewardOutput) -> dict[str, Tensor]:
            found, step = losses(batch, output), len(self.weights)
            factors = {BAD_GRADIENT: torch.inf, SPIKE: 1e4}
            if self.is_last and step == BAD_LOSS:
                found["loss"] = found["loss"] + torch.inf
            if self.is_last and step in factors:
                found["loss"] = Scaled.apply(found["loss"], factors[step])
            return found

        pl_module.losses = spoilt

    def on_train_batch_start(self, trainer: Any, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self.rows.append(batch.row[batch.valid.bool()].tolist())

    def on_train_batch_end(
        self, trainer: Any, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trained = (weight for weight in pl_module.parameters() if weight.requires_grad)
        self.weights.append([local(each).detach().clone() for each in trained])


def trains(module: str, trainer: str) -> bool:
    """Whether it does: the second order is of one device, and members of one backbone are not sharded."""
    return (trainer == "one" or module not in methods.SECOND_ORDER) and shards(module, trainer)


def run_all(rank: int, folder: Path, trainer: str, modules: list[str], port: int) -> None:
    """One rank of a training of every module; what is wrong is left in a file."""
    torchrun_environment(rank, TRAINERS[trainer].ranks, port)
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    be_thrifty()
    for module in modules:
        if trains(module, trainer):
            seen = train(folder, trainer, module, rank)
            (folder / f"{trainer} {module} {rank}").write_text(json.dumps(seen))


def train(folder: Path, trainer: str, method: str, rank: int) -> dict[str, Any]:
    """Say what is wrong of a training, and of one that ends at its first bad step; and what spikes are kept."""
    faults, said, module, names = fit(folder, trainer, method, rank, max_skipped=10)
    changed = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(faults.weights)]
    spoilt = (BAD_LOSS, BAD_GRADIENT)
    wrong = [f"step {step}: changed {was}" for step, was in enumerate(changed, 1) if was == (step in spoilt)]
    if not all(weight.isfinite().all() for weight in faults.weights[-1]):
        wrong.append("weights are not finite")
    for step, cause in zip(spoilt, ("loss" if faults.is_last else "gradient", "gradient"), strict=True):
        pairs = ", ".join(dict.fromkeys(names[row] for row in faults.rows[step]))
        if f"optimizer step {step}: the {cause} of {pairs} is not finite, and nothing is changed" not in said:
            wrong.append(f"step {step} of {pairs} is not named: {said}")
    counted = {name: float(module.trainer.callback_metrics[f"train/{name}"]) for name in COUNTS}
    if counted != COUNTS:
        wrong.append(f"counted {counted}")
    kept = [[spike.step, sorted(spike.rows)] for spike in module.spikes()]
    second, *_ = fit(folder, trainer, method, rank, max_skipped=1)
    if len(second.weights) != BAD_LOSS + 1:
        wrong.append(f"max_skipped=1 ended after {len(second.weights)} steps")
    return {"wrong": wrong, "kept": kept, "rows": faults.rows[SPIKE]}


def fit(
    folder: Path, trainer: str, method: str, rank: int, **options: Any
) -> tuple[Faults, list[str], PairwiseRM, Any]:
    """A training; what it watched and warned of, its module, and each pair's name."""
    torch.manual_seed(0)
    ranks, strategy, *_ = TRAINERS[trainer]
    module = methods.module_of(method, "float32", ADAMW, **options)
    for part in module.modules():
        if isinstance(part, SwAV) and trainer.startswith("zero"):
            part.frozen = 0.0
    plain, share = method.removesuffix("_lora"), PAIRS_A_STEP // ranks
    data = methods.data_of(plain, folder / "cache", share, share, train=methods.training_rows(plain, 32))
    faults = Faults(rank == ranks - 1)
    how: dict[str, Any] = {"max_epochs": None, "max_steps": STEPS, "gradient_clip_val": 0.5, "log_every_n_steps": 1}
    of_one = toy_trainer(folder, strategy=strategy_of(strategy), devices=ranks, callbacks=[faults], **how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            of_one.fit(module, data)
        except DivergedError:
            assert options["max_skipped"] == 1
    said = [str(each.message) for each in caught if re.match("optimizer step", str(each.message))]
    return faults, said, module, {row: data.name_of_pair(row) for step in faults.rows for row in step}


def main(words: list[str]) -> int:
    everything = (*MODULES, *methods.SECOND_ORDER)
    if unknown := [word for word in words if word not in (*everything, *ON)]:
        raise SystemExit(f"{unknown[0]} is neither a module ({', '.join(everything)}) nor of {', '.join(ON)}")
    modules = [name for name in words if name in everything] or list(everything)
    trainers = [name for name in words if name in ON] or [name for name in ON if runs_here(name)]
    failed = number = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for trainer in trainers:
            ranks = TRAINERS[trainer].ranks
            run_ranks(run_all, ranks, folder, trainer, modules)
            for module in (each for each in modules if trains(each, trainer)):
                seen = [json.loads((folder / f"{trainer} {module} {rank}").read_text()) for rank in range(ranks)]
                told = [f"rank {rank}: {wrong}" for rank, one in enumerate(seen) for wrong in one["wrong"]]
                rows = sorted(chain.from_iterable(one["rows"] for one in seen))
                if seen[0]["kept"] != [[SPIKE, rows]]:
                    told.append(f"spikes {seen[0]['kept']} in place of step {SPIKE} and pairs {rows}")
                number, failed = number + 1, failed + bool(told)
                print(f"{trainer} {module}: {'' if told else 'as promised'}", *told, sep="\n    ", flush=True)
    print(f"{number} trainings with three faults each; {failed} did not keep the promise")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
