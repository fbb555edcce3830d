"""What a step of `ContrastiveRM` and of `MetaRM` costs beside one of `BaselineRM`, and what Lightning adds to it.

    OMP_NUM_THREADS=1 python benchmarks/overhead.py --out benchmarks/results/overhead.json

Every method trains by Lightning's trainer on the same pairs of random tokens, and `bare` in a loop of forward, loss,
backward, clipping and step without trainer, module and metrics: what the baseline takes beyond that is overhead.
MetaRM's response groups are as many sequences of the same lengths as the pairs. The methods take turns, a block of
steps each, so that a machine busy with other things disturbs all alike; processor time is the main figure on a CPU, the
clock on a GPU. A block's steps follow one on two pairs, which is not timed. Ratios are of medians; their quartiles are
over the rounds, each method's block beside the baseline's block of the same round. Operations are those of matrix
products and attention, counted: what the ratio would be if all else were free.

Memory is counted twice: what MetaRM holds more than the baseline when the forward of the pairs begins, its ascent done,
as a multiple of the trained weights; and the peak of a step.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import transformers
from common import backbone, origin, rotated
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from lightning_rm.batch import PreferenceBatch, Sample, group_batch, preference_batch
from lightning_rm.data.batches.layouts import padded
from lightning_rm.losses import ranking_loss
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.optimization import parameter_groups

SEED, VOCABULARY, K = 0, 8000, 4
TOKENS = (45, 75)  # of a prompt and of a response, 60 in the mean: a data module's batches are of near lengths
TARGETS = {"simcse": 2.1, "swav": 2.1, "meta": 2.3}
OVERHEAD_TARGET = 0.03
ADAMW = partial(torch.optim.AdamW, lr=1e-5, weight_decay=0.01, fused=True)


def build(encoder: bool, layers: int, width: int) -> dict[str, PairwiseRM]:
    """A module of each method, with the settings of its experiment and a model of its own."""
    config = backbone(layers, width, positions=512, encoder=encoder)
    model = partial(RewardModel.from_config, config, vocab_size=VOCABULARY, pad_id=0, seed=SEED)
    views = None if encoder else "embeddings"  # BERT has dropout of its own, whatever the method
    return {
        "baseline": BaselineRM(model(), ADAMW),
        "bare": BaselineRM(model(), ADAMW),
        "simcse": ContrastiveRM(model(), ADAMW, SimCSE, dropout_at=views),
        "swav": ContrastiveRM(model(), ADAMW, partial(SwAV, num_prototypes=50), beta=0.1, dropout_at=views),
        "meta": MetaRM(model(), ADAMW),
    }


def make_batch(draw: random.Random, num_pairs: int, read_at: Any) -> PreferenceBatch:
    """Pairs of random tokens, and groups of K responses: two pairs' lengths are one group's, none of their tokens."""

    def tokens(number: int) -> list[int]:
        return [draw.randrange(1, VOCABULARY) for _ in range(number)]

    def sample(lengths: Sequence[int]) -> Sample:
        prompt = tokens(TOKENS[0])
        return Sample([prompt + tokens(length - len(prompt)) for length in lengths], len(prompt))

    prompts = [draw.randint(*TOKENS) for _ in range(num_pairs)]
    lengths = [prompt + draw.randint(*TOKENS) for prompt in prompts for _ in range(2)]
    pairs = [sample(lengths[place : place + 2]) for place in range(0, len(lengths), 2)]
    groups = [sample(lengths[place : place + K]) for place in range(0, len(lengths), K)]
    batch = preference_batch(padded(pairs, read_at, 0))
    return replace(batch, responses=(group_batch(padded(groups, read_at, 0)),))


class Times(L.Callback):
    """Processor time and the clock, in seconds, at the end of every step; the peak of CUDA memory after the first."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.peak = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
            if self.ends:
                self.peak = torch.cuda.max_memory_allocated()
            else:
                torch.cuda.reset_peak_memory_stats()
        self.ends.append((time.process_time(), time.perf_counter()))

    def a_step(self) -> tuple[float, float]:
        """Seconds of a step but the first, in processor time and by the clock."""
        (cpu, wall), (cpu_end, wall_end) = self.ends[0], self.ends[-1]
        return (cpu_end - cpu) / (len(self.ends) - 1), (wall_end - wall) / (len(self.ends) - 1)


def fit(module: PairwiseRM, batches: Sequence[PreferenceBatch], arguments: argparse.Namespace) -> Times:
    """One block of steps. Only what a method reads is in its batches."""
    if not module.reads_responses:
        batches = [replace(batch, responses=()) for batch in batches]
    times = Times()
    trainer = L.Trainer(
        accelerator=arguments.accelerator,
        devices=1,
        precision="bf16-mixed" if arguments.accelerator == "gpu" else "32-true",
        max_epochs=1,
        gradient_clip_val=1.0,
        log_every_n_steps=arguments.log_every,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[times],
    )
    gc.collect()
    trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch))
    return times


def loop(module: PairwiseRM, batches: Sequence[PreferenceBatch], arguments: argparse.Namespace) -> Times:
    """The same block of steps of the baseline as a plain loop, with nothing that is not needed to train."""
    times, model = Times(), module.model
    device = "cuda" if arguments.accelerator == "gpu" else "cpu"
    model.to(device).train()
    optimizer: Any = ADAMW(parameter_groups(model.backbone_parameters(), model.head_parameters()))
    gc.collect()
    for batch in batches:
        moved = batch.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            reward = model(moved.tokens).reward
        loss = ranking_loss(reward[0], reward[1], moved.label, moved.margin)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.ends.append((time.process_time(), time.perf_counter()))
    return times


def live_bytes() -> int:
    """Bytes of all tensors there are, but the gradients of the step before, which MetaRM forgets earlier."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    for weight in tensors:
        if isinstance(weight, nn.Parameter) and weight.grad is not None:
            storages.pop(weight.grad.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def memory(modules: dict[str, PairwiseRM], run: Callable[[PairwiseRM], Times]) -> dict[str, float]:
    """MetaRM's memory beside the baseline's, as multiples of the bytes of its trained weights."""
    trained = sum(weight.nbytes for weight in modules["meta"].model.parameters() if weight.requires_grad)
    live: dict[str, int] = {}
    peak: dict[str, int] = {}
    copies = 0
    for name in ("baseline", "meta"):
        module = modules[name]

        def note(module: PairwiseRM, args: object, name: str = name) -> None:
            nonlocal copies
            live[name] = live_bytes()
            if isinstance(module, MetaRM):
                copies = sum(copy.nbytes for copy in module.climb.ascent._other)

        # The LightningModule is called with the pairs alone; its ascent calls the reward model.
        hook = module.register_forward_pre_hook(note)
        times = run(module)
        hook.remove()
        peak[name] = times.peak or trained + profiled_peak(partial(run, module))
    return {
        "trained_megabytes": trained / 1e6,
        "copies": copies / trained,
        "live_beyond_baseline": (live["meta"] - live["baseline"]) / trained,
        "peak_beyond_baseline": (peak["meta"] - peak["baseline"]) / trained,
        "peak_to_baseline": peak["meta"] / peak["baseline"],
    }


def profiled_peak(run: Callable[[], object]) -> int:
    """Most bytes allocated at one time within a run on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return int(np.cumsum(sizes).max())


def summary(seconds: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Each method's seconds and ratios, by both clocks."""
    base = np.array(seconds["baseline"])
    found: dict[str, Any] = {}
    for name, blocks in seconds.items():
        taken = np.array(blocks)
        found[name] = {"target": TARGETS[name]} if name in TARGETS else {}
        for place, clock in enumerate(("cpu", "wall")):
            low, high = np.quantile(taken[:, place] / base[:, place], (0.25, 0.75))
            found[name][clock] = {
                "seconds": round(float(np.median(taken[:, place])), 4),
                "ratio": round(float(np.median(taken[:, place]) / np.median(base[:, place])), 3),
                "quartiles": [round(float(low), 3), round(float(high), 3)],
            }
    return found


def operations(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and the attention of a run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def report(results: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'':10}{'ms a step':>10}{'ratio':>8}{'quartiles':>16}{'by the clock':>15}{'operations':>12}{'target':>9}")
    main_clock, other = ("wall", "cpu") if results["settings"]["accelerator"] == "gpu" else ("cpu", "wall")
    for name, found in results["methods"].items():
        values = found[main_clock]
        low, high = values["quartiles"]
        target = f"{found['target']:.1f}" if "target" in found else ""
        missed = " missed" if "target" in found and values["ratio"] > found["target"] else ""
        print(
            f"{name:10}{1000 * values['seconds']:10.0f}{values['ratio']:8.3f}{f'{low:.3f} to {high:.3f}':>16}"
            f"{found[other]['ratio']:15.3f}{found['operations']:12.3f}{target:>9}{missed}"
        )
    added = results["lightning_overhead"]
    print(f"Lightning, module and metrics add {added[main_clock]:.1%} to a bare loop; target {added['target']:.0%}")
    for name, value in results["memory"].items():
        print(f"{name.replace('_', ' '):24}{value:10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="store_true", help="a BERT; else a Llama")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=16, help="of a batch")
    parser.add_argument("--steps", type=int, default=2, help="timed in a block")
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each method")
    parser.add_argument("--log-every", type=int, default=10**9, help="steps; diagnostics are computed then")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--profile", metavar="METHOD", help="print where the processor time of a block goes, and end")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overhead.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(SEED, verbose=False)
    modules = build(arguments.encoder, arguments.layers, arguments.width)
    draw = random.Random(SEED)
    read_at = modules["baseline"].model.read_at
    first = make_batch(draw, 2, read_at)
    batches = [first, *(make_batch(draw, arguments.pairs, read_at) for _ in range(arguments.steps))]
    run = partial(fit, batches=batches, arguments=arguments)
    if arguments.profile:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            run(modules[arguments.profile])
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))
        return
    for module in modules.values():
        fit(module, [first], arguments)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in modules}
    names = list(modules)
    for turn in range(arguments.rounds):
        for name in rotated(names, turn):
            block = loop(modules[name], batches, arguments) if name == "bare" else run(modules[name])
            seconds[name].append(block.a_step())
    methods = summary(seconds)
    overhead = {clock: round(1 / methods["bare"][clock]["ratio"] - 1, 4) for clock in ("cpu", "wall")}
    once = partial(fit, batches=batches[:2], arguments=arguments)
    counted = {name: operations(partial(once, module)) for name, module in modules.items()}
    for name, number in counted.items():
        methods[name]["operations"] = round(number / counted["baseline"], 3)
    weights = sum(weight.numel() for weight in modules["baseline"].model.parameters())
    grid = [batch.tokens.num_tokens for batch in batches[1:]]
    results: dict[str, Any] = {
        **origin(torch, L, transformers, gpu=arguments.accelerator == "gpu"),
        "settings": {
            "backbone": "bert" if arguments.encoder else "llama",
            **{
                name: getattr(arguments, name)
                for name in ("layers", "width", "pairs", "steps", "rounds", "accelerator")
            },
            "parameters": weights,
            "tokens_a_batch": sum(grid) / len(grid),
            "seed": SEED,
        },
        "methods": methods,
        "lightning_overhead": overhead | {"target": OVERHEAD_TARGET},
        "memory": {name: round(value, 4) for name, value in memory(modules, once).items()},
    }
    report(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
