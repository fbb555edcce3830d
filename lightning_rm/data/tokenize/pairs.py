"""From pair rows to tokenised pairs on disk: once for a source, a tokenizer and a policy, and cached.

`prepare_pairs` reads a source, counts what became of every row and writes the rest in chunks, so that a data set need
not fit in memory. Templates, loading and the cuts have files of their own; what the rest of the package calls of them
has its door here. This file knows no layout, no batch and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import BadRow, PairRow, Source, places_of
from lightning_rm.data.store.pairs import SCHEMA, SCHEMA_VERSION, PairDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.draft import Draft
from lightning_rm.data.tokenize.fitting import fit, left_out_for
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.data.tokenize.preparing import chunks_of, notes, prepared, transcript
from lightning_rm.data.tokenize.tally import Tally
from lightning_rm.data.tokenize.templates import encode_conversation
from lightning_rm.data.tokenize.tokenizer import load_tokenizer

__all__ = ["TokenizePolicy", "encode_conversation", "load_tokenizer", "prepare_pairs"]


def prepare_pairs(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    policy: TokenizePolicy,
    cache_dir: Path | str | None = None,
    name: str = "data",
) -> PairDataset:
    """The tokenised pairs of a source: read from the cache, or made and put there.

    Args:
        source: pair rows, good and bad; not read when the cache file is there.
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with the bad and the long.
        cache_dir: a folder; None takes `cache.default_cache_dir()`.
        name: what the data set is called in reports and errors.

    Raises:
        ValueError: for rows that the policy calls errors, the whole source read and the first ten shown; and when no
            pair is left.
    """
    return prepared(
        source,
        tokenizer,
        policy,
        cache_dir,
        version=SCHEMA_VERSION,
        load=lambda path: PairDataset(path, name, places_of(source)),
        build=lambda file: _write(file, source, tokenizer, Tally(policy, DataReport(name, notes=notes(tokenizer)))),
    )


def _write(file: BinaryIO, source: Source, tokenizer: PreTrainedTokenizerBase, tally: Tally) -> None:
    """Write every pair of a source that is kept, chunk by chunk, and the report at the end."""
    prompts: dict[str, int] = {}
    subsets: dict[str, int] = {}
    with pa.ipc.new_file(file, SCHEMA) as writer:
        for chunk in chunks_of(source):
            kept = list(_kept(chunk, tokenizer, tally))
            columns = [_columns(draft, prompts, subsets) for draft in kept]
            if columns:
                writer.write_batch(pa.RecordBatch.from_pylist(columns, schema=SCHEMA))
        tally.check()
        metadata = {
            "report": tally.report.to_json(),
            "subset_names": json.dumps(list(subsets)),
            "places": json.dumps(places_of(source)),
        }
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=SCHEMA), custom_metadata=metadata)


def _kept(
    chunk: Sequence[tuple[int, PairRow | BadRow]], tokenizer: PreTrainedTokenizerBase, tally: Tally
) -> Iterator[Draft[PairRow]]:
    """The pairs of a chunk that are used; every row is counted."""
    tally.leave_out_bad(row for _, row in chunk if isinstance(row, BadRow))
    for draft in fit([(place, row) for place, row in chunk if isinstance(row, PairRow)], tokenizer, tally.policy):
        if left_out := left_out_for(draft, tokenizer, tally.policy.max_tokens):
            tally.leave_out(draft.row.place, *left_out)
        else:
            tally.report.keep(draft.changes, draft.row.place)
            yield draft


def _columns(draft: Draft[PairRow], prompts: dict[str, int], subsets: dict[str, int]) -> dict[str, object]:
    """One pair as a row of the file; `prompts` and `subsets` number the names in order of appearance."""
    row = draft.row
    chosen, rejected = draft.ids
    return {
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "prompt_length": draft.prompt_length,
        "prompt_index": prompts.setdefault(row.prompt_id, len(prompts)),
        "subset": subsets.setdefault(row.subset, len(subsets)),
        "label": row.label,
        "margin": _number(row.margin),
        "weight": row.weight,
        "clean": _number(row.clean),
        "gold_margin": _number(row.gold_margin),
        "strength_mean": _number(row.strength_mean),
        "strength_std": _number(row.strength_std),
        "votes": row.votes,
        "id": row.id,
        "prompt_id": row.prompt_id,
        "where": row.where,
        "source_row": draft.place,
        "prompt_text": transcript(draft.prompt),
        "chosen_text": transcript(draft.responses[0]),
        "rejected_text": transcript(draft.responses[1]),
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
