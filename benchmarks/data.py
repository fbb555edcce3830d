"""What preference pairs cost before a model sees them: rows a second and memory, by the number of rows, in one run.

    python benchmarks/data.py --rows 10000 100000 --out benchmarks/results/data.json

Pairs are of random words of the made world, each prompt of one pair. Five stages: `prepare` reads JSONL, renders the
chat template, tokenises and writes the cache; `open` finds the cache again; `plan` is a sampler and all micro-batches
of one epoch, in random order and by length, with so many pairs a batch and with a budget of tokens; `collate` reads
batches through the loader, in this process and in two workers. Sizes take turns, round by round, in processes of their
own: one prepares, one does all else, both once before on 20 pairs, which is not measured. Ratios are of a row's cost to
that of the smallest size, 1 where cost is linear: of medians, with quartiles over the rounds.

Memory is resident, in megabytes over what the process had before: the peak of a stage (what earlier ones left is in
it), what of it is files mapped into memory at its end (which the system can take back), and by how many bytes a row the
peak grows from the smallest size; a worker's is whole. Read from Linux' /proc. Files are in the page cache, as they are
for whoever has just written them.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import torch
import transformers
from common import origin
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.batches.layouts import padded
from lightning_rm.data.batches.loader import BatchLoader, PairBatches
from lightning_rm.data.batches.orders import Order
from lightning_rm.data.batches.sampler import PairBatchSampler
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.data.tokenize.pairs import TokenizePolicy, load_tokenizer, prepare_pairs

SEED, PAIRS, BUDGET = 0, 16, 4096  # a budget of about as many pairs
WORDS = (10, 110)  # of a prompt and of a response
POLICY = TokenizePolicy(max_tokens=512, overlong="truncate_prompt")
ORDERS: tuple[Order, ...] = ("random", "length")

Measure = dict[str, float]
Work = Callable[["Task", "PreTrainedTokenizerBase", "Stages"], None]


@dataclass(frozen=True)
class Task:
    """What a process of its own is to do: `rows` are JSONL, no tokenizer is the made world's."""

    work: Work
    rows: Path
    tokenizer: Path | None
    num_batches: int

    @property
    def cache(self) -> Path:
        return self.rows.with_suffix(".cache")

    def open(self, tokenizer: PreTrainedTokenizerBase) -> PairDataset:
        return prepare_pairs(FileSource(self.rows), tokenizer, POLICY, self.cache)


def write_rows(path: Path, num_rows: int) -> None:
    """Pairs of random words; those of a small file are the first of a large one."""
    draw = random.Random(SEED)
    words = draw.choices(VOCABULARY, k=1_000_000)

    def text() -> str:
        start = draw.randrange(len(words) - WORDS[1])
        return " ".join(words[start : start + draw.randint(*WORDS)])

    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_rows):
            file.write(json.dumps({"prompt": text(), "chosen": text(), "rejected": text()}) + "\n")


def resident(name: str) -> float:
    """Megabytes of this process: `VmRSS`, of it `RssFile`, or the peak `VmHWM` (getrusage's is also the parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def seconds() -> tuple[float, float]:
    """Processor time of this process and of its children that are gone, and the clock."""
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + gone.ru_utime + gone.ru_stime, time.perf_counter()


class Stages:
    """Measures of one process, by stage."""

    def __init__(self) -> None:
        gc.collect()
        self.measures: dict[str, Measure] = {}
        self.before = {name: resident(name) for name in ("VmRSS", "RssFile")}

    def measure(self, name: str, rows: int | None, work: Callable[[], Any]) -> Any:
        """Do the work of a stage; `rows` None takes their number from what it gives."""
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        before = seconds()
        result = work()
        cpu, wall = (after - start for after, start in zip(seconds(), before, strict=True))
        self.measures[name] = {
            "rows": len(result) if rows is None else rows,
            "cpu": cpu,
            "wall": wall,
            "peak": resident("VmHWM") - self.before["VmRSS"],
            "mapped": resident("RssFile") - self.before["RssFile"],
        }
        return result


def prepare(task: Task, tokenizer: PreTrainedTokenizerBase, stages: Stages) -> None:
    """From JSONL to the cache."""
    stages.measure("prepare", None, lambda: task.open(tokenizer))


def read(task: Task, tokenizer: PreTrainedTokenizerBase, stages: Stages) -> None:
    """All that is done with the cache."""
    pairs = stages.measure("open", None, lambda: task.open(tokenizer))
    for order in ORDERS:
        for name, limit in (("pairs", {"num_pairs": PAIRS}), ("budget", {"num_tokens": BUDGET})):

            def plan(order: Order = order, limit: dict[str, int] = limit) -> int:
                return sum(len(batch.rows) for batch in sampler(pairs, order, **limit))

            read_rows = stages.measure(f"plan {order} {name}", len(pairs), plan)
            assert read_rows == len(pairs)
    batches = PairBatches(pairs, "train", padded, "last", int(tokenizer.pad_token_id))  # pyright: ignore
    for num_workers in (0, 2):
        some = sampler(pairs, "length", num_pairs=PAIRS, span=lambda: (0, task.num_batches))
        rows = min(task.num_batches * PAIRS, len(pairs))

        def collate(num_workers: int = num_workers, some: PairBatchSampler = some) -> None:
            for batch in BatchLoader(batches, some, num_workers):
                assert batch.num_pairs
            gc.collect()  # ends the workers, whose time counts then

        stages.measure(f"collate {num_workers}", rows, collate)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    stages.measures["collate 2"]["worker"] = worker


def sampler(pairs: PairDataset, order: Order, **options: Any) -> PairBatchSampler:
    return PairBatchSampler(pairs.lengths, pairs.prompt_index, order=order, seed=SEED, **options)


def do(task: Task) -> dict[str, Measure]:
    """A task's measures; what is imported or loaded at a first use is so on the pairs of `few.jsonl`."""
    warnings.simplefilter("ignore")  # of two workers on fewer cores
    multiprocessing.set_start_method("fork", force=True)  # Linux' own, which a process that was spawned forgets
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(task.tokenizer) if task.tokenizer else world_tokenizer()
    task.work(replace(task, rows=task.rows.with_name("few.jsonl")), tokenizer, Stages())
    stages = Stages()
    task.work(task, tokenizer, stages)
    return stages.measures


def in_a_process(task: Task) -> dict[str, Measure]:
    """A task's measures in a process that is new, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(do, task).result()


def summary(rounds: dict[int, list[dict[str, Measure]]]) -> dict[str, Any]:
    """Size -> stage -> what a row costs by both clocks, and memory."""
    smallest = min(rounds)

    def values(size: int, stage: str, name: str) -> Any:
        return np.array([measures[stage][name] for measures in rounds[size]])

    def a_row(size: int, stage: str, clock: str) -> Any:
        return values(size, stage, clock) / values(size, stage, "rows")

    found: dict[str, Any] = {}
    for size, measures in rounds.items():
        found[str(size)] = {stage: {} for stage in measures[0]}
        for stage, entry in found[str(size)].items():
            for clock in ("cpu", "wall"):
                taken, base = a_row(size, stage, clock), a_row(smallest, stage, clock)
                entry[clock] = {
                    "microseconds_a_row": round(1e6 * float(np.median(taken)), 2),
                    "quartiles": quartiles(1e6 * taken, 2),
                    "rows_a_second": round(float(1 / np.median(taken))),
                    "ratio": round(float(np.median(taken) / np.median(base)), 3),
                    "ratio_quartiles": quartiles(taken / base, 3),
                }
            peak = np.median(values(size, stage, "peak"))
            entry["peak_megabytes"] = round(float(peak), 1)
            entry["mapped_megabytes"] = round(float(np.median(values(size, stage, "mapped"))), 1)
            if size > smallest:
                grown = peak - np.median(values(smallest, stage, "peak"))
                entry["bytes_a_row"] = round(float(grown) * 2**20 / (size - smallest), 1)
            if "worker" in measures[0][stage]:
                entry["worker_megabytes"] = round(float(np.median(values(size, stage, "worker"))), 1)
    return found


def quartiles(values: Any, digits: int) -> list[float]:
    return [round(float(value), digits) for value in np.quantile(values, (0.25, 0.75))]


def report(sizes: dict[str, Any]) -> None:
    """Print the table."""
    head = ("rows a s", "us a row", "quartiles", "us of CPU", "quartiles", "ratio", "peak MB", "mapped", "B a row")
    widths = (10, 10, 18, 11, 18, 8, 9, 8, 9)
    print(f"{'rows':>9} {'stage':20}" + "".join(f"{name:>{width}}" for name, width in zip(head, widths, strict=True)))
    for size, stages in sizes.items():
        for stage, entry in stages.items():
            wall, cpu = entry["wall"], entry["cpu"]
            values: Iterable[str] = (
                f"{wall['rows_a_second']:,}",
                f"{wall['microseconds_a_row']:.1f}",
                "{:.1f} to {:.1f}".format(*wall["quartiles"]),
                f"{cpu['microseconds_a_row']:.1f}",
                "{:.1f} to {:.1f}".format(*cpu["quartiles"]),
                f"{cpu['ratio']:.2f}",
                f"{entry['peak_megabytes']:.0f}",
                f"{entry['mapped_megabytes']:.0f}",
                f"{entry['bytes_a_row']:.0f}" if "bytes_a_row" in entry else "",
            )
            print(f"{int(size):9,} {stage:20}" + "".join(f"{v:>{w}}" for v, w in zip(values, widths, strict=True)))


def run(sizes: Sequence[int], arguments: argparse.Namespace, folder: Path) -> dict[int, list[dict[str, Measure]]]:
    """All rounds; sizes take turns."""
    rounds: dict[int, list[dict[str, Measure]]] = {size: [] for size in sizes}
    write_rows(folder / "few.jsonl", 20)
    for size in sizes:
        write_rows(folder / f"{size}.jsonl", size)
    for _ in range(arguments.rounds):
        for size in sizes:
            measures: dict[str, Measure] = {}
            for work in (prepare, read):
                task = Task(work, folder / f"{size}.jsonl", arguments.tokenizer, arguments.batches)
                measures |= in_a_process(task)
            rounds[size].append(measures)
            for cache in folder.glob("*.cache"):
                shutil.rmtree(cache)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="1000000 takes 4 GB of disk")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="a fast tokenizer; else the made world's")
    parser.add_argument("--batches", type=int, default=600, help="that are collated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where pairs and cache are kept for the time of the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rounds = run(arguments.rows, arguments, Path(folder))
    results: dict[str, Any] = {
        **origin(torch, transformers, tokenizers, pa, np),
        "cores": os.cpu_count(),
        "settings": {
            "tokenizer": arguments.tokenizer.name if arguments.tokenizer else "made world",
            "words": WORDS,
            "pairs": PAIRS,
            "budget": BUDGET,
            "batches": arguments.batches,
            "rounds": arguments.rounds,
            "seed": SEED,
        },
        "rows": summary(rounds),
    }
    report(results["rows"])
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
