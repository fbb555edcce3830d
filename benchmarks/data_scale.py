"""What a pair costs from ten thousand of them to five million: from Parquet shards through the cache to an epoch.

    python benchmarks/data_scale.py --pairs 10000 100000 1000000 5000000 --folder scratch

Pairs are of random words of the made world, twelve tokens a conversation, in shards of 100,000. Three stages, each in a
process of its own: `prepare` reads the shards, renders the chat template, tokenises in a process for each core and
writes the cache; `open` finds the cache again, compares its checksum and opens it; `epoch` is one epoch of a trivial
model, a number for each token id that is added up, by Lightning, through the data module's own sampler, loader and
batches. Time is the processor's, of all processes of a stage, for a pair. Memory is the most that these processes had
together at a time (PSS: a page that several have counts once; half of what a cache file takes in memory is the
system's to take back), looked at every half second. Sizes that `--out` has are not measured again, and a stage that was
killed goes on; `went_on` says so, and its time is then of what was left.

With `--copies 50` the largest size's cache is written fifty times into one file, of which everything but tokenising is
measured: what five million pairs take to open, to plan and to read, where there is no hour to tokenise them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tokenizers
import torch
import transformers
from common import origin
from torch import Tensor, nn

from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.batches.layouts import padded
from lightning_rm.data.batches.loader import PairBatches
from lightning_rm.data.batches.sampler import PairBatchSampler
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.store.cache import SEAL_BYTES, check_seal, seal
from lightning_rm.data.store.pair_file import SCHEMA
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.losses.ranking import ranking_loss

SHARD_PAIRS = 100_000
PIECES = 2**16
COPIED_BATCHES = 300
WORDS = {"prompt": ((2, 3), (1, 3)), "chosen": ((1, 2), (1, 3)), "rejected": ((1, 2), (1, 3))}
"""Of the two pieces that a text is of: the fewest and the most words."""

Measures = dict[str, Any]


class Bag(L.LightningModule):
    """A reward that is the sum of a number for each token: next to nothing to compute."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.weight = nn.Embedding(vocab_size, 1)
        self.rows: list[np.ndarray[Any, Any]] = []

    def training_step(self, batch: PreferenceBatch, place: int) -> Tensor:
        tokens = batch.tokens
        by_row = (self.weight(tokens.input_ids).squeeze(-1) * tokens.mask).sum(1)
        chosen, rejected = by_row[tokens.reward_index // tokens.input_ids.shape[1]]
        self.rows.append(batch.row.numpy())
        return ranking_loss(chosen, rejected).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def write_shards(folder: Path, num_pairs: int) -> list[Path]:
    """Write what is missing of the shards."""
    files: list[Path] = []
    for shard, start in enumerate(range(0, num_pairs, SHARD_PAIRS)):
        count = min(SHARD_PAIRS, num_pairs - start)
        files.append(folder / f"pairs-{shard:04}-{count}.parquet")
        if files[-1].exists():
            continue
        draw = np.random.default_rng([0, shard])
        table = {name: text(draw, pieces, count) for name, pieces in WORDS.items()}
        draft = files[-1].with_suffix(".tmp")
        pq.write_table(pa.table(table), draft, row_group_size=10_000)
        draft.rename(files[-1])
    return files


def text(draw: np.random.Generator, pieces: tuple[tuple[int, int], ...], count: int) -> Any:
    def some(least: int, most: int) -> Any:
        words = [[VOCABULARY[word] for word in row] for row in draw.integers(len(VOCABULARY), size=(PIECES, most))]
        lengths = draw.integers(least, most + 1, size=PIECES)
        pool = pa.array([" ".join(row[:length]) for row, length in zip(words, lengths, strict=True)])
        return pool.take(pa.array(draw.integers(PIECES, size=count)))

    return pc.call_function("binary_join_element_wise", [*(some(*bounds) for bounds in pieces), " "])


def data(files: list[Path], cache: Path, processes: int | None, batch_pairs: int) -> PreferenceDataModule:
    return PreferenceDataModule(
        world_tokenizer(),
        [*files],
        max_tokens=64,
        layout="padded",
        batch_pairs=batch_pairs,
        cache_dir=cache,
        prepare_processes=processes,
    )


def prepare(files: list[Path], cache: Path, processes: int | None, batch_pairs: int) -> Measures:
    """From shards to the cache."""
    left = any(cache.glob("*.tmp"))
    module = data(files, cache, processes, batch_pairs)
    module.setup("fit")
    (file,) = cache.glob("*.arrow")
    pairs = module.datasets["train"]
    return {
        "pairs": len(pairs),
        "tokens": round(float(pairs.lengths.mean()), 2),
        "cache_megabytes": round(file.stat().st_size / 1e6, 1),
        "shard_megabytes": round(sum(found.stat().st_size for found in files) / 1e6, 1),
        "went_on": left,
    }


def open_again(files: list[Path], cache: Path, processes: int | None, batch_pairs: int) -> Measures:
    """Find the cache: the digest of the shards, the checksum of the file, its columns, and a loader."""
    module = data(files, cache, processes, batch_pairs)
    module.setup("fit")
    return {"batches": len(module.train_dataloader())}


def epoch(files: list[Path], cache: Path, processes: int | None, batch_pairs: int) -> Measures:
    """One epoch, and how well it was shuffled."""
    module = data(files, cache, processes, batch_pairs)
    L.seed_everything(0, verbose=False)
    bag = Bag(len(module.tokenizer))
    folder = cache / "checkpoint"
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(bag, module)
    trainer.save_checkpoint(folder / "last.ckpt")
    rows = np.concatenate(bag.rows)
    whole = len(np.unique(rows)) == len(rows) == len(module.datasets["train"])
    place = np.arange(len(rows))
    shards = [len(np.unique(batch // SHARD_PAIRS)) for batch in bag.rows[:-1] or bag.rows]
    size = (folder / "last.ckpt").stat().st_size
    shutil.rmtree(folder)
    return {
        "every_pair_once": bool(whole),
        "rank_correlation": round(float(np.corrcoef(place, rows)[0, 1]), 5) + 0.0,
        "shards_a_batch": round(float(np.mean(shards)), 2),
        "shards": len(files),
        "checkpoint_bytes": size,
    }


def copied(files: list[Path], cache: Path, processes: int | None, batch_pairs: int) -> Measures:
    """Of a cache file that has the batches of another many times: check and open it, plan an epoch, read its start."""
    start = cpu()
    check_seal(cache)
    sealed = cpu()
    pairs = PairDataset(cache)
    opened = cpu()
    sampler = PairBatchSampler(pairs.lengths, num_pairs=batch_pairs, order="length")
    num_batches = len(sampler.plan(0))
    planned = cpu()
    read = PairBatches(pairs, "copied", padded, "last", 0)
    num_read = sum(read.__getitems__(batch).num_pairs for batch in islice(sampler, COPIED_BATCHES))
    microseconds = 1e6 / len(pairs)
    return {
        "pairs": len(pairs),
        "batches": num_batches,
        "cache_megabytes": round(cache.stat().st_size / 1e6, 1),
        "microseconds_a_pair": {
            "checksum": round(microseconds * (sealed - start), 2),
            "open": round(microseconds * (opened - sealed), 2),
            "plan": round(microseconds * (planned - opened), 2),
            "collate": round(1e6 * (cpu() - planned) / num_read, 1),
        },
    }


def copies(cache: Path, copy: Path, num_copies: int) -> Path:
    """Write a cache file that has another's batches so many times, each pair with a place of its own."""
    (source,) = cache.glob("*.arrow")
    with pa.memory_map(str(source)) as file:
        content = file.read_buffer()
        reader = pa.ipc.open_file(pa.BufferReader(content.slice(0, len(content) - SEAL_BYTES)))
        last = reader.num_record_batches - 1
        said: Any = reader.get_batch_with_custom_metadata(last)
        column = SCHEMA.get_field_index("source_row")
        with copy.open("wb") as opened, pa.ipc.new_file(opened, SCHEMA) as writer:
            start = 0
            for _ in range(num_copies):
                for batch in map(reader.get_batch, range(last)):
                    places = pa.array(np.arange(start, start + batch.num_rows))
                    writer.write_batch(batch.set_column(column, SCHEMA.field(column), places))
                    start += batch.num_rows
            writer.write_batch(said.batch, custom_metadata=said.custom_metadata)
    seal(copy)
    return copy


Stage = Callable[[list[Path], Path, "int | None", int], Measures]
STAGES: dict[str, Stage] = {"prepare": prepare, "open": open_again, "epoch": epoch, "copied": copied}


def do(stage: str, *arguments: Any) -> Measures:
    """Run a stage in this process, which is new, and measure its time and that of its children."""
    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    before = cpu()
    start = time.perf_counter()
    found = STAGES[stage](*arguments)
    return {"cpu": round(cpu() - before, 2), "wall": round(time.perf_counter() - start, 2), **found}


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory(process: int) -> float:
    """Megabytes that a process and its descendants have together, shared pages counted once (PSS)."""
    total, left = 0.0, [process]
    while left:
        found = left.pop()
        try:
            lines = Path(f"/proc/{found}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            total += next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
            for task in Path(f"/proc/{found}/task").iterdir():
                left += map(int, (task / "children").read_text(encoding="utf-8").split())
        except (OSError, StopIteration):  # it has just ended
            continue
    return total


def measured(stage: str, *arguments: Any) -> Measures:
    """A stage's measures, in a process of its own that is watched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        (process,) = [pool.submit(os.getpid).result()]
        future: Future[Measures] = pool.submit(do, stage, *arguments)
        peak = memory(process)
        while not future.done():
            peak = max(peak, memory(process))
            time.sleep(0.5)
        return {**future.result(), "peak_megabytes": round(peak)}


def write(out: Path, sizes: dict[str, Any], batch_pairs: int) -> None:
    """Write what is measured so far."""
    results: dict[str, Any] = {
        **origin(torch, L, transformers, tokenizers, pa, np),
        "cores": os.cpu_count(),
        "settings": {"words": WORDS, "shard_pairs": SHARD_PAIRS, "batch_pairs": batch_pairs},
        "pairs": sizes,
    }
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def report(sizes: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'pairs':>14} {'stage':8} {'us of CPU a pair':>17} {'seconds':>9} {'peak MB':>8} {'cache MB':>9}")
    for size, stages in sizes.items():
        for name, found in stages.items():
            cache = f"{found['cache_megabytes']:,.0f}" if "cache_megabytes" in found else ""
            num_pairs = stages.get("prepare", found)["pairs"]
            each, peak = 1e6 * found["cpu"] / num_pairs, found["peak_megabytes"]
            print(f"{size:>14} {name:8} {each:17.1f} {found['wall']:9,.0f} {peak:8,} {cache:>9}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000], help="5000000 take 3 GB of disk")
    parser.add_argument("--folder", type=Path, required=True, help="where shards and caches are kept")
    parser.add_argument("--processes", type=int, help="that tokenise; one a core where it is not given")
    parser.add_argument("--copies", type=int, default=0, help="of the largest size's cache in one file")
    parser.add_argument("--keep", action="store_true", help="keep the caches")
    parser.add_argument("--batch-pairs", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data_scale.json"))
    given = parser.parse_args()
    sizes: dict[str, Any] = {}
    if given.out.exists():
        sizes = json.loads(given.out.read_text(encoding="utf-8"))["pairs"]
    for size in given.pairs:
        given.folder.mkdir(parents=True, exist_ok=True)
        files = write_shards(given.folder, size)
        cache = given.folder / f"cache-{size}"
        for stage in ("prepare", "open", "epoch"):
            stages = sizes.setdefault(str(size), {})
            if stage in stages:
                continue
            stages[stage] = measured(stage, files, cache, given.processes, given.batch_pairs)
            write(given.out, sizes, given.batch_pairs)
            print(size, stage, json.dumps(stages[stage]), file=sys.stderr, flush=True)
        name = f"{size} x {given.copies}"
        if given.copies and size == max(given.pairs) and name not in sizes:
            copy = copies(cache, given.folder / "copies.arrow", given.copies)
            sizes[name] = {"copied": measured("copied", files, copy, given.processes, given.batch_pairs)}
            copy.unlink()
            write(given.out, sizes, given.batch_pairs)
        if not given.keep:
            shutil.rmtree(cache, ignore_errors=True)
    report(sizes)


if __name__ == "__main__":
    main()
