"""From rows to tokenised pairs on disk: once for a source, a tokenizer and a policy, and cached.

A row is a pair, or k scored responses to one prompt, which are written down once: their pairs are made when the file is
read.

`prepare_pairs` reads a source, counts what became of every row and writes the rest in chunks, so that a data set need
not fit in memory. Templates, loading and the cuts have files of their own; the rest of the package imports
what it needs of them from here. This file knows no layout, no batch and no model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import TIE, BadRow, GroupRow, GroupSource, PairRow, Source, places_of
from lightning_rm.data.store.pair_file import SCHEMA, SCHEMA_VERSION
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.draft import Draft
from lightning_rm.data.tokenize.fitting import fit, left_out_for
from lightning_rm.data.tokenize.groups import responses_kept, thinned
from lightning_rm.data.tokenize.policy import NOT_SCORED, TokenizePolicy
from lightning_rm.data.tokenize.preparing import chunks_of, notes, prepared, transcript
from lightning_rm.data.tokenize.tally import Tally, doubted
from lightning_rm.data.tokenize.templates import encode_conversation
from lightning_rm.data.tokenize.tokenizer import load_tokenizer

__all__ = ["TokenizePolicy", "encode_conversation", "load_tokenizer", "prepare_pairs"]


def prepare_pairs(
    source: Source | GroupSource,
    tokenizer: PreTrainedTokenizerBase,
    policy: TokenizePolicy,
    cache_dir: Path | str | None = None,
    name: str = "data",
) -> PairDataset:
    """Return the tokenised pairs of a source: read from the cache, or made and put there.

    Args:
        source: rows of pairs or of scored responses, good and bad; not read when the cache file is there.
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
        load=lambda path: PairDataset(path, name, places_of(source), policy.ties),
        build=lambda file: _write(file, source, tokenizer, Tally(policy, DataReport(name, notes=notes(tokenizer)))),
    )


def _write(file: BinaryIO, source: Source | GroupSource, tokenizer: PreTrainedTokenizerBase, tally: Tally) -> None:
    """Write every pair of a source that is kept, chunk by chunk, and the report at the end."""
    prompts: dict[str, int] = {}
    subsets: dict[str, int] = {}
    attributes: dict[str, int] = {}
    num_responses, lost = 0, Counter[str]()
    with pa.ipc.new_file(file, SCHEMA) as writer:
        for chunk in chunks_of(source):
            pairs = [_pair(draft, prompts, subsets) for draft in _kept(chunk, tokenizer, tally)]
            groups = [(place, row) for place, row in chunk if isinstance(row, GroupRow)]
            drafts = thinned(_scored(groups, tally), tokenizer, tally, lost, are_scored=True)
            num_responses += sum(len(draft.ids) for draft in drafts)
            columns = pairs + [_group(draft, prompts, subsets, attributes) for draft in drafts]
            columns.sort(key=lambda column: column["source_row"])
            if columns:
                writer.write_batch(pa.RecordBatch.from_pylist(columns, schema=SCHEMA))
        if num_responses:
            tally.report.notes.append(f"{tally.report.name}: {responses_kept(num_responses, lost)}")
        tally.check()
        metadata = {
            "report": tally.report.to_json(),
            "subset_names": json.dumps(list(subsets)),
            "attributes": json.dumps(list(attributes)),
            "places": json.dumps(places_of(source)),
        }
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=SCHEMA), custom_metadata=metadata)


def _kept(
    chunk: Sequence[tuple[int, PairRow | GroupRow | BadRow]], tokenizer: PreTrainedTokenizerBase, tally: Tally
) -> Iterator[Draft[PairRow]]:
    """Yield the pairs of a chunk that are used; every row is counted."""
    tally.leave_out_bad(row for _, row in chunk if isinstance(row, BadRow))
    pairs = [(place, row) for place, row in chunk if isinstance(row, PairRow)]
    if tally.policy.ties == "drop":
        for _, row in pairs:
            if row.tied:
                tally.leave_out(row.place, TIE, "the annotators prefer neither response (ties=keep trains on it)")
        pairs = [(place, row) for place, row in pairs if not row.tied]
    for draft in fit(pairs, tokenizer, tally.policy):
        if left_out := left_out_for(draft, tokenizer, tally.policy.max_tokens):
            tally.leave_out(draft.row.place, *left_out)
        else:
            tally.report.keep(draft.changes | doubted(draft.row), draft.row.place)
            yield draft


def _scored(rows: Sequence[tuple[int, GroupRow]], tally: Tally) -> list[tuple[int, GroupRow]]:
    """Return the groups whose responses have scores; the others are counted."""
    for _, row in rows:
        if not row.scores:
            tally.leave_out(row.place, NOT_SCORED, "to train on it, a row of responses needs 'scores' or 'ranks'")
    return [(place, row) for place, row in rows if row.scores]


def _pair(draft: Draft[PairRow], prompts: dict[str, int], subsets: dict[str, int]) -> dict[str, Any]:
    """Return one pair as a row of the file; `prompts` and `subsets` number the names in order of appearance."""
    row = draft.row
    return {
        **_shared(draft, prompts, subsets),
        "scores": [],
        "label": row.label,
        "margin": _number(row.margin),
        "weight": row.weight,
        "clean": _number(row.clean),
        "gold_margin": _number(row.gold_margin),
        "strength_mean": _number(row.strength_mean),
        "strength_std": _number(row.strength_std),
        "votes": row.votes,
    }


def _group(
    draft: Draft[GroupRow], prompts: dict[str, int], subsets: dict[str, int], attributes: dict[str, int]
) -> dict[str, Any]:
    """Return one group of scored responses as a row of the file; `attributes` numbers the names as they appear."""
    for scores in draft.row.scores:
        for name in scores:
            attributes.setdefault(name, len(attributes))
    scored = [[scores.get(name, float("nan")) for name in attributes] for scores in draft.row.scores]
    unknown = dict.fromkeys(("margin", "clean", "gold_margin", "strength_mean", "strength_std"), float("nan"))
    return {
        **_shared(draft, prompts, subsets),
        **unknown,
        "scores": scored,
        "label": 1.0,
        "weight": 1.0,
        "votes": [],
    }


def _shared(
    draft: Draft[PairRow] | Draft[GroupRow], prompts: dict[str, int], subsets: dict[str, int]
) -> dict[str, Any]:
    """Return the columns of pairs and groups alike."""
    row = draft.row
    return {
        "ids": draft.ids,
        "prompt_length": draft.prompt_length,
        "prompt_index": prompts.setdefault(row.prompt_id, len(prompts)),
        "subset": subsets.setdefault(row.subset, len(subsets)),
        "id": row.id,
        "prompt_id": row.prompt_id,
        "origin": row.origin,
        "source_row": draft.place,
        "prompt_text": transcript(draft.prompt),
        "texts": [transcript(response) for response in draft.responses],
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
