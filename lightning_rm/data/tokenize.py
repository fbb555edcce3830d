"""From pair rows to tokenised pairs on disk: once for a source, a tokenizer and a policy, and cached.

`prepare_pairs` reads a source, counts what became of every row and writes the rest in chunks, so that a data set need
not fit in memory. Templates, loading and the cuts have files of their own; what the rest of the package calls of them
has its door here. This file knows no layout, no batch and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.cache import default_cache_dir, fingerprint, load_or_build
from lightning_rm.data.dataset import SCHEMA, SCHEMA_VERSION, PairDataset
from lightning_rm.data.fitting import IDENTICAL, IDENTICAL_CUT, OVERLONG, Draft, TokenizePolicy, fit
from lightning_rm.data.loading import definition, load_tokenizer
from lightning_rm.data.report import DataReport
from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, Message, PairRow, Source
from lightning_rm.data.templates import DECODER_TEMPLATE, ENCODER_TEMPLATE, encode_conversation, is_encoder

__all__ = ["TokenizePolicy", "encode_conversation", "load_tokenizer", "prepare_pairs"]

CHUNK_ROWS = 1000
"""Rows that are in memory at a time; each chunk is one call of the tokenizer and one Arrow batch."""

MAX_ERRORS = 10
"""How many bad rows an error message shows."""


def prepare_pairs(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    policy: TokenizePolicy,
    cache_dir: Path | str | None = None,
    name: str = "data",
) -> PairDataset:
    """The tokenised pairs of a source: read from the cache, or made and put there.

    The cache file is named by everything that its content depends on: what the source holds, the tokenizer with its
    template, the policy and the version of the file's columns. The source is not read when the file is there.

    Args:
        source: pair rows, good and bad.
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with the bad and the long.
        cache_dir: a folder; None takes `cache.default_cache_dir()`.
        name: what the data set is called in reports and errors.

    Raises:
        ValueError: for rows that the policy calls errors, the whole source read and the first ten shown; and when no
            pair is left.
    """
    _check(tokenizer, policy)
    key = fingerprint(
        version=SCHEMA_VERSION,
        source=source.fingerprint(),
        tokenizer=definition(tokenizer),
        special_tokens=tokenizer.special_tokens_map,
        template=tokenizer.chat_template,
        policy=asdict(policy),
    )
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)
    return load_or_build(
        folder / f"{key}.arrow",
        load=lambda path: PairDataset(path, name),
        build=lambda file: _write(file, source, tokenizer, _Tally(policy, DataReport(name, notes=_notes(tokenizer)))),
    )


def _check(tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy) -> None:
    """Raise for a tokenizer that the policy or the cache cannot rely on."""
    template = str(tokenizer.chat_template)
    if tokenizer.chat_template is None or "strftime_now(" in template:
        fault = "is missing" if tokenizer.chat_template is None else "prints today's date"
        raise ValueError(f"the tokenizer's chat template {fault}; load it with load_tokenizer, which mends that")
    if is_encoder(tokenizer) and policy.max_tokens > tokenizer.model_max_length:
        limit = tokenizer.model_max_length
        raise ValueError(f"max_tokens={policy.max_tokens}, but this encoder has {limit} positions; set {limit} or less")


def _notes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a reader of the report should know of the tokenizer."""
    kind = {DECODER_TEMPLATE: "decoders", ENCODER_TEMPLATE: "encoders"}.get(str(tokenizer.chat_template))
    return [f"the tokenizer brings no chat template; the default for {kind} is used"] if kind else []


@dataclass
class _Tally:
    """Counts every row, and remembers those that the policy calls errors."""

    policy: TokenizePolicy
    report: DataReport
    errors: list[str] = field(default_factory=list[str])
    ways_out: dict[str, None] = field(default_factory=dict[str, None])

    def leave_out(self, where: str, reason: str, detail: str) -> None:
        self.report.leave_out(reason, f"{where}: {detail}")
        if way_out := self._way_out(reason):
            self.errors.append(f"{where}: {reason}: {detail}")
            self.ways_out[way_out] = None

    def _way_out(self, reason: str) -> str | None:
        """What to set so that rows of this kind are no error; None if they are none now."""
        if reason in EXPECTED_REASONS:
            return None
        if reason == OVERLONG:
            ways = "overlong=drop, overlong=truncate_prompt or a larger max_tokens"
            return ways if self.policy.overlong == "error" else None
        if reason in (IDENTICAL, IDENTICAL_CUT):
            return "identical=drop" if self.policy.identical == "error" else None
        return "on_bad_row=drop" if self.policy.on_bad_row == "error" else None

    def check(self) -> None:
        """Raise for errors, and for a data set without pairs."""
        name, read = self.report.name, self.report.read
        if self.errors:
            shown = [f"  {error}" for error in self.errors[:MAX_ERRORS]]
            more = len(self.errors) - len(shown)
            shown += [f"  and {more:,} more"] if more else []
            raise ValueError(
                "\n".join([f"{name}: {len(self.errors):,} of {read:,} rows cannot be used", *shown])
                + f"\nMend them, or have them counted and left out with {' and '.join(self.ways_out)}."
            )
        if not self.report.kept:
            raise ValueError(f"{name}: no pair is left to use\n{self.report}")


def _write(file: BinaryIO, source: Source, tokenizer: PreTrainedTokenizerBase, tally: _Tally) -> None:
    """Write every pair of a source that is kept, chunk by chunk, and the report at the end."""
    prompts: dict[str, int] = {}
    subsets: dict[str, int] = {}
    rows = enumerate(source)
    with pa.ipc.new_file(file, SCHEMA) as writer:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            kept = list(_kept(chunk, tokenizer, tally))
            columns = [_columns(draft, prompts, subsets) for draft in kept]
            if columns:
                writer.write_batch(pa.RecordBatch.from_pylist(columns, schema=SCHEMA))
        tally.check()
        metadata = {"report": tally.report.to_json(), "subset_names": json.dumps(list(subsets))}
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=SCHEMA), custom_metadata=metadata)


def _kept(
    chunk: Sequence[tuple[int, PairRow | BadRow]], tokenizer: PreTrainedTokenizerBase, tally: _Tally
) -> Iterator[Draft]:
    """The pairs of a chunk that are used; every row is counted."""
    for _, row in chunk:
        if isinstance(row, BadRow):
            tally.leave_out(row.where, row.reason, row.detail)
    for draft in fit([(place, row) for place, row in chunk if isinstance(row, PairRow)], tokenizer, tally.policy):
        if left_out := draft.left_out_for(tally.policy.max_tokens):
            tally.leave_out(f"pair {draft.row.id}", *left_out)
        else:
            tally.report.keep(draft.changes, f"pair {draft.row.id}")
            yield draft


def _columns(draft: Draft, prompts: dict[str, int], subsets: dict[str, int]) -> dict[str, object]:
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
        "source_row": draft.place,
        "prompt_text": _transcript(draft.prompt),
        "chosen_text": _transcript(draft.responses[0]),
        "rejected_text": _transcript(draft.responses[1]),
    }


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _transcript(messages: Sequence[Message]) -> str:
    """Turns in words: one turn as it is, several with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
