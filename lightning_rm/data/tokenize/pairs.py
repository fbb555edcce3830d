"""From rows to tokenised pairs on disk: once for a source, a tokenizer and a policy, and cached.

A row is a pair, or k scored responses to one prompt, which are written once: their pairs are made when the file is
read.

`prepare_pairs` reads a source, counts what became of every row and writes the rest in chunks, so that a data set need
not fit in memory. Chunks are tokenised by one process per core, and a preparation that was killed is resumed.
Templates, loading and the cuts have files of their own; the rest of the package imports what it needs of them from
here. This file knows no layout, no batch and no model.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import GroupSource, Source
from lightning_rm.data.store.pair_file import SCHEMA, SCHEMA_VERSION
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.chunks import make
from lightning_rm.data.tokenize.encoding import encode_conversation
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.data.tokenize.preparing import chunks_of, notes, prepared
from lightning_rm.data.tokenize.processes import mapped, num_cores
from lightning_rm.data.tokenize.tally import Tally
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.data.tokenize.written import Written

__all__ = ["TokenizePolicy", "encode_conversation", "load_tokenizer", "prepare_pairs"]


def prepare_pairs(
    source: Source | GroupSource,
    tokenizer: PreTrainedTokenizerBase,
    policy: TokenizePolicy,
    cache_dir: Path | str | None = None,
    name: str = "data",
    num_processes: int | None = None,
) -> PairDataset:
    """Return the tokenised pairs of a source: read from the cache, or made and put there.

    Args:
        source: rows of pairs or of scored responses, good and bad; not read when the cache file is there.
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with bad rows and long ones.
        cache_dir: a folder; None takes `cache.default_cache_dir()`.
        name: what the data set is called in reports and errors.
        num_processes: how many processes tokenise; None for one per core. The file does not depend on it.

    Raises:
        ValueError: for rows that the policy calls errors, after the whole source was read, with the first ten faults;
            and if no pair is left.
    """
    build = partial(
        _write,
        source=source,
        tokenizer=tokenizer,
        tally=Tally(policy, DataReport(name, notes=notes(tokenizer))),
        num_processes=num_cores() if num_processes is None else num_processes,
    )
    return prepared(
        source,
        tokenizer,
        policy,
        cache_dir,
        version=SCHEMA_VERSION,
        load=lambda path: PairDataset(path, name, places_of(source), policy.ties),
        build=build,
        go_on=lambda file, begun: build(file, begun=begun),
    )


def _write(
    file: BinaryIO,
    source: Source | GroupSource,
    tokenizer: PreTrainedTokenizerBase,
    tally: Tally,
    num_processes: int,
    begun: Path | None = None,
) -> None:
    """Write every pair of a source that is kept, chunk by chunk, and the report at the end.

    Args:
        file: the file to write to.
        source: rows.
        tokenizer: as `load_tokenizer` gives it.
        tally: counts them.
        num_processes: that tokenise.
        begun: what a killed process wrote of the same file; its pairs are not tokenised again.
    """
    written = Written(tally, places_of(source))
    with pa.ipc.new_file(file, SCHEMA) as writer:
        if begun is not None:
            written.take_over(begun, writer)
        chunks = chunks_of(source, written.next_row)
        for made in mapped(partial(make, tokenizer, tally.policy), chunks, num_processes):
            written.write(made, writer)
        written.finish(writer)
