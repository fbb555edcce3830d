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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.batches.batching import Batching
from lightning_rm.data.batches.layouts import layout_of
from lightning_rm.data.batches.loader import PairBatches
from lightning_rm.data.batches.sampler import PairBatchSampler
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
from lightning_rm.drafts import naming

STREAM_VERSION = 1
"""Changes whenever the same settings come to mean another order of pairs."""


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
            layout = layout_of(self.batching.layout, self.batching.steady_tokens)
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

    def beginning(self) -> PairDataset:
        """Return the first buffer of the first reader; whoever reads the stream still reads it."""
        return self._filled(Mark(), 0)[0]

    def _filled(self, start: Mark, reader: int) -> tuple[PairDataset, Mark]:
        """Return a buffer of pairs, and where the next one begins.

        It ends with the pass, so that passes do not mix, but for what is missing to a whole batch.
        """
        written = Written(Tally(self.policy, DataReport("train")), [])
        rows, after, wanted, num_kept = self._rows(start, reader), start, self.buffer, 0
        with tempfile.TemporaryDirectory(prefix="lightning_rm-stream-") as folder:
            path = Path(folder) / "pairs.arrow"
            with naming(path), path.open("wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
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
