"""A chunk of rows to columns of the file of tokenised pairs: what one process does, knowing of no other chunk.

What chunks number by themselves, subsets and attributes, is renumbered for the whole file where they are put
together (`written`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.rows import TIE, BadRow, GroupRow, PairRow
from lightning_rm.data.store.pair_file import SCHEMA
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.draft import Draft
from lightning_rm.data.tokenize.fitting import fit, left_out_for
from lightning_rm.data.tokenize.groups import thinned
from lightning_rm.data.tokenize.policy import NOT_SCORED, TokenizePolicy
from lightning_rm.data.tokenize.preparing import transcript
from lightning_rm.data.tokenize.tally import Tally, noted

AnyRow = PairRow | GroupRow | BadRow


@dataclass
class Made:
    """What became of a chunk.

    Args:
        next_row: the place after the chunk's last row.
        tally: counts of its rows.
        batch: its rows of the file; None where none is kept.
        subsets: names of the chunk's subsets, in the order that `batch` numbers them.
        attributes: the same of the attributes of scores.
        num_responses: scored responses that are kept.
        lost: reason -> scored responses that are left out.
    """

    next_row: int
    tally: Tally
    batch: Any = None
    subsets: dict[str, int] = field(default_factory=dict[str, int])
    attributes: dict[str, int] = field(default_factory=dict[str, int])
    num_responses: int = 0
    lost: Counter[str] = field(default_factory=Counter[str])


def make(tokenizer: PreTrainedTokenizerBase, policy: TokenizePolicy, chunk: Sequence[tuple[int, AnyRow]]) -> Made:
    """Tokenise a chunk.

    Args:
        tokenizer: as `load_tokenizer` gives it.
        policy: what to do with the bad and the long.
        chunk: rows and their places in their source.
    """
    made = Made(chunk[-1][0] + 1, Tally(policy, DataReport()))
    columns = [_pair(draft, made) for draft in _kept(chunk, tokenizer, made.tally)]
    groups = [(place, row) for place, row in chunk if isinstance(row, GroupRow)]
    drafts = thinned(_scored(groups, made.tally), tokenizer, made.tally, made.lost, are_scored=True)
    made.num_responses = sum(len(draft.ids) for draft in drafts)
    columns += [_group(draft, made) for draft in drafts]
    columns.sort(key=lambda column: column["source_row"])
    if columns:
        made.batch = pa.RecordBatch.from_pylist(columns, schema=SCHEMA)
    return made


def prompt_key(prompt_id: str) -> int:
    """Return 64 bits that stand for a prompt: of five million prompts two share them once in a million data sets."""
    return int.from_bytes(blake2b(prompt_id.encode(), digest_size=8).digest(), "little", signed=True)


def _kept(
    chunk: Sequence[tuple[int, AnyRow]], tokenizer: PreTrainedTokenizerBase, tally: Tally
) -> Iterator[Draft[PairRow]]:
    """Yield the pairs of a chunk that are used; every row is counted."""
    tally.leave_out_bad(row for _, row in chunk)
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
            tally.report.keep(draft.changes | noted(draft.row), draft.row.place, draft.row.unread)
            yield draft


def _scored(rows: Sequence[tuple[int, GroupRow]], tally: Tally) -> list[tuple[int, GroupRow]]:
    """Return the groups whose responses have scores; the others are counted."""
    for _, row in rows:
        if not row.scores:
            tally.leave_out(row.place, NOT_SCORED, "to train on it, a row of responses needs 'scores' or 'ranks'")
    return [(place, row) for place, row in rows if row.scores]


def _pair(draft: Draft[PairRow], made: Made) -> dict[str, Any]:
    """Return one pair as a row of the file."""
    row = draft.row
    return {
        **_shared(draft, made.subsets),
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


def _group(draft: Draft[GroupRow], made: Made) -> dict[str, Any]:
    """Return one group of scored responses as a row of the file."""
    row, attributes = draft.row, made.attributes
    for scores in row.scores:
        for name in scores:
            attributes.setdefault(name, len(attributes))
    scored = [[scores.get(name, float("nan")) for name in attributes] for scores in row.scores]
    unknown = dict.fromkeys(("margin", "clean", "gold_margin", "strength_mean", "strength_std"), float("nan"))
    return {
        **_shared(draft, made.subsets),
        **unknown,
        "scores": scored,
        "label": 1.0,
        "weight": row.weight,
        "votes": [],
    }


def _shared(draft: Draft[PairRow] | Draft[GroupRow], subsets: dict[str, int]) -> dict[str, Any]:
    """Return the columns of pairs and groups alike; `subsets` numbers the names in order of appearance."""
    row = draft.row
    return {
        "ids": draft.ids,
        "prompt_length": draft.prompt_length,
        "prompt_key": prompt_key(row.prompt_id),
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
