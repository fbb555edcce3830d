"""Training pairs that are streamed: read where they lie, tokenised as they come, shuffled in a buffer, and forgotten.

Row groups of Parquet shards are dealt to readers, of which each worker process of each rank is one; a reader goes
through its row groups in passes, each in a new order, and through all of them before any comes again. It tokenises as
many pairs as its buffer holds to a file of their own, gone when they are read, and makes batches of them as of any data
set. An epoch is a number of full batches, the same on every rank: as many as the rows of the shards fill. Where rows
are left out it ends in the next pass, which the next epoch goes on with: no row is skipped. Where a reader stands is
five numbers, and a checkpoint has those of all readers.

It knows row groups, tokenising and batches; no trainer.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.batches.loader import PairBatches, leave_signals
from lightning_rm.data.batches.orders import Order
from lightning_rm.data.batches.sampler import PairBatchSampler
from lightning_rm.data.batches.shipping import ship
from lightning_rm.data.pair_sets import Batching
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.store.cache import seal
from lightning_rm.data.store.pair_file import SCHEMA
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.chunks import make
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.data.tokenize.preparing import CHUNK_ROWS
from lightning_rm.data.tokenize.tally import Tally
from lightning_rm.data.tokenize.written import Written
from lightning_rm.digests import digest

STREAM_VERSION = 1
"""Changes whenever the same settings come to mean another order of pairs."""

REMEMBERED = 8
"""Batches that a trainer may have taken and not trained on."""


@dataclass(frozen=True)
class Mark:
    """Where a reader stands.

    Args:
        number: of the pass over its row groups that its buffer begins in.
        place: of the row group in the pass's order.
        row: the first one of that group that the buffer has.
        emitted: batches of the buffer that were read.
        batches: batches that it has given in all.
    """

    number: int = 0
    place: int = 0
    row: int = 0
    emitted: int = 0
    batches: int = 0


@dataclass(frozen=True)
class Shipped:
    """A batch on its way from a reader.

    Args:
        batch: for the trainer.
        reader: which one it comes from.
        mark: where that reader stands after it.
        report: what became of the rows of a new buffer; None in the middle of one.
    """

    batch: PreferenceBatch
    reader: int
    mark: Mark
    report: DataReport | None


class StreamedPairs(IterableDataset[Shipped]):
    """The pairs that one rank reads in the rest of an epoch, in batches.

    Args:
        shards: where the pairs lie.
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with the bad and the long.
        batching: how pairs become batches; its order is `length` or `random`.
        rank: this process's place among those that read different pairs.
        world_size: their number.
        shuffle: False keeps row groups, and the pairs of a buffer, in their order.
    """

    def __init__(
        self,
        shards: ParquetShards,
        tokenizer: PreTrainedTokenizerBase,
        policy: TokenizePolicy,
        batching: Batching,
        rank: int = 0,
        world_size: int = 1,
        *,
        shuffle: bool = True,
    ) -> None:
        self.shards, self.tokenizer, self.policy, self.batching = shards, tokenizer, policy, batching
        self.rank, self.world_size, self.shuffle = rank, world_size, shuffle
        self.num_pairs = batching.batch_pairs or 1
        self.buffer = -(-shards.buffer_pairs // self.num_pairs) * self.num_pairs
        self.workers = max(1, batching.num_workers)
        self.marks = [Mark() for _ in range(self.workers)]
        self.done = 0
        if (readers := self.num_readers) > len(shards.groups):
            raise ValueError(
                f"the shards have {len(shards.groups)} row groups, fewer than the {readers} readers ({world_size} "
                f"devices x {self.workers} workers), of which some would have nothing to read; write smaller row "
                "groups (row_group_size=10000), or take fewer workers"
            )

    @property
    def num_readers(self) -> int:
        """Readers on all ranks."""
        return self.world_size * self.workers

    def __len__(self) -> int:
        """Count the batches of a whole epoch, the same on every rank."""
        return max(1, self.shards.num_rows // (self.num_pairs * self.world_size))

    def __iter__(self) -> Iterator[Shipped]:
        """Yield this worker's batches of what is left of the epoch: with two workers, every other one."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        turn = sum(mark.batches for mark in self.marks)  # torch asks its first worker first, whose turn it may not be
        reader = (turn + worker) % workers
        num_left = len(range(worker, len(self) - self.done, workers))
        return islice(self.batches(reader), num_left)

    def dealt(self, number: int, reader: int) -> list[int]:
        """Return the row groups that one of all readers has in a pass, in order.

        They are dealt one after the other to who has the fewest rows yet, so that shares differ by a group at most.
        """
        order = np.arange(len(self.shards.groups))
        if self.shuffle:
            order = np.random.Generator(np.random.PCG64([self.batching.seed, number])).permutation(order)
        rows, dealt = [0] * self.num_readers, list[list[int]]([[] for _ in range(self.num_readers)])
        for group in order.tolist():
            least = rows.index(min(rows))
            rows[least] += self.shards.groups[group].num_rows
            dealt[least].append(group)
        return dealt[reader]

    def batches(self, reader: int) -> Iterator[Shipped]:
        """Yield batches of one of this rank's readers without end, from where it stands."""
        mark = self.marks[reader]
        while True:
            start = replace(mark, emitted=0, batches=0)
            pairs, after = self._filled(start, self.rank * self.workers + reader)
            name = [STREAM_VERSION, self.batching.seed, self.rank * self.workers + reader, list(asdict(start).values())]
            sampler = PairBatchSampler(
                pairs.lengths,
                num_pairs=self.num_pairs,
                order=self.batching.order,
                seed=int(digest(name, 15), 16),
                shuffle=self.shuffle,
            )
            layout = LAYOUTS[self.batching.layout]
            read = PairBatches(pairs, "train", layout, self.batching.read_at, self.batching.pad_id)
            report = pairs.report if mark.emitted == 0 else None
            for number, micro_batch in enumerate(sampler):
                if number < mark.emitted:
                    continue
                batch = read.__getitems__(micro_batch)
                batch = replace(batch, row=torch.from_numpy(pairs.source_row[list(micro_batch.rows)]))
                last = number + 1 == len(sampler)
                mark = replace(after if last else start, emitted=0 if last else number + 1, batches=mark.batches + 1)
                yield Shipped(batch, reader, mark, report)
                report = None

    def _filled(self, start: Mark, reader: int) -> tuple[PairDataset, Mark]:
        """Return a buffer of pairs, and where the next one begins.

        It ends with the pass, so that passes do not mix, but for what is missing to a whole batch.
        """
        written = Written(Tally(self.policy, DataReport("train")), [])
        rows, after, wanted, num_kept = self._rows(start, reader), start, self.buffer, 0
        with tempfile.TemporaryDirectory(prefix="lightning_rm-stream-") as folder:
            path = Path(folder) / "pairs.arrow"
            with path.open("wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
                while num_kept < wanted:
                    taken = list(islice(rows, min(CHUNK_ROWS, wanted - num_kept)))
                    if not taken:
                        if not num_kept and after.number > start.number:
                            break  # of a whole pass nothing was kept
                        wanted = -(-num_kept // self.num_pairs) * self.num_pairs or self.buffer
                        after = Mark(after.number + 1)
                        rows = self._rows(after, reader)
                        continue
                    after = taken[-1][0]
                    made = make(self.tokenizer, self.policy, [(place, row) for _, place, row in taken])
                    num_kept += 0 if made.batch is None else made.batch.num_rows
                    written.write(made, writer)
                    if written.tally.errors:
                        written.tally.check()
                written.finish(writer)
            seal(path)
            return PairDataset(path, "train"), after  # mapped: its bytes stay until it is read

    def _rows(self, start: Mark, reader: int) -> Iterator[tuple[Mark, int, PairRow | BadRow]]:
        """Yield what is left of a reader's pass, each row with where the next one stands and its number among all."""
        groups, skip = self.dealt(start.number, reader), start.row
        for place in range(start.place, len(groups)):
            first = int(self.shards.starts[groups[place]])
            for row, found in enumerate(self.shards.read(groups[place], skip), start=skip):
                yield Mark(start.number, place, row + 1), first + row, found
            skip = 0


class StreamLoader:
    """The loader of streamed pairs: remembers where every reader stands after each batch.

    Args:
        pairs: of one rank.

    Attributes:
        report: what became of the rows that this rank has tokenised.
    """

    def __init__(self, pairs: StreamedPairs) -> None:
        self.pairs = pairs
        self.report = DataReport("train")
        self._given = deque[tuple[int, Mark]]()  # what the trainer has or may not have trained on
        self._next = 0  # the batch of the epoch that the next iteration begins with

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[PreferenceBatch]:
        """Yield what is left of the epoch: a generator, so that nothing happens before the first one is asked for."""
        self._settle(len(self._given))
        self.pairs.done, self._next = self._next, 0
        workers, pin = self.pairs.batching.num_workers, torch.cuda.is_available()
        loader: Any = DataLoader(
            self.pairs,
            batch_size=None,
            collate_fn=ship,
            worker_init_fn=leave_signals,
            num_workers=workers,
            generator=torch.Generator().manual_seed(self.pairs.batching.seed),
        )
        for shipped in loader:
            self._given.append((shipped.reader, shipped.mark))
            self._settle(len(self._given) - REMEMBERED)
            if shipped.report is not None:
                self.report.add(shipped.report)
            yield shipped.batch.pin_memory() if pin else shipped.batch

    def position(self, num_trained: int) -> list[list[int]]:
        """Return where every reader stands when so many batches of the epoch are trained on, as plain numbers."""
        marks = list(self.pairs.marks)
        num_given = len(self._given)
        if num_trained or self.pairs.done + num_given < len(self):  # else the epoch is over, and the next has not begun
            num_given = max(num_trained - self.pairs.done, 0)
        for reader, mark in islice(self._given, num_given):
            marks[reader] = mark
        return [list(asdict(mark).values()) for mark in marks]

    def go_on(self, position: Sequence[Sequence[int]], num_trained: int) -> None:
        """Stand where readers stood, with so many batches of the epoch trained on."""
        self.pairs.marks = [Mark(*numbers) for numbers in position]
        self._next = num_trained
        self._given.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state; having one tells Lightning that training can go on in the middle of an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the data module keeps positions, which are of all ranks."""

    def _settle(self, num_batches: int) -> None:
        """Take the first batches that are remembered for trained on."""
        for _ in range(num_batches):
            reader, mark = self._given.popleft()
            self.pairs.marks[reader] = mark
            self.pairs.done += 1


def stream_settings(shards: ParquetShards, batching: Batching, policy: TokenizePolicy) -> dict[str, str | int | None]:
    """Return what the order of streamed pairs depends on, except for devices."""
    return {
        "shards": f"{len(shards.files)} (fingerprint {shards.fingerprint()[:12]})",
        "stream": STREAM_VERSION,
        "batch_pairs": batching.batch_pairs,
        "order": batching.order,
        "buffer_pairs": shards.buffer_pairs,
        "num_workers": batching.num_workers,
        "max_tokens": policy.max_tokens,
        "seed": batching.seed,
    }


def check_streamed(
    order: Order,
    *,
    batch_pairs: int | None,
    treatments: Sized,
    resample: object,
    responses: object,
    val_fraction: float,
) -> None:
    """Check that nothing is asked of streamed pairs that only all of them together could tell.

    Raises:
        ValueError: if something is.
    """
    asked = {
        f"order={order}": order not in ("length", "random")
        and "only orders random and length are known before all pairs are; take order=random",
        "batch_tokens": batch_pairs is None
        and "how many batches of a budget there are is known when all are tokenised; set batch_pairs",
        "treatments": bool(treatments)
        and "quantiles of strength are of all pairs; read the shards whole, data=jsonl data.file=*.parquet",
        "resample": resample is not None and "folds and bootstrap samples are of a whole set; read it with data=jsonl",
        "responses": responses is not None
        and "groups of responses are dealt to the steps of an epoch of known pairs; read them with data=jsonl",
        f"val_fraction={val_fraction:g}": val_fraction > 0
        and "prompts that are held out would have to be found in all shards; name val files, data.val_file=...",
    }
    for what, why in asked.items():
        if why:
            raise ValueError(f"{what} with streamed shards: {why}")
