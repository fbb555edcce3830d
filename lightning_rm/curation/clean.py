"""Every row of the source to one of two files: what is trained on, and what is set aside; each row says why.

A flipped row has its responses exchanged, so that `chosen` is the better one for whoever reads the file: it trains to
what the treatment would. It knows rows and decisions; no votes are made here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_rm.annotation.files import CHUNK_ROWS, SCHEMA, columns_of
from lightning_rm.annotation.votes import Votes
from lightning_rm.data.rows import BadRow, PairRow, Source
from lightning_rm.drafts import draft_of
from lightning_rm.strength import Targets
from lightning_rm.strength.policies import is_turned

CLEAN_SCHEMA = pa.schema(
    [*SCHEMA, ("decision", pa.string()), ("why", pa.string()), ("where", pa.string()), ("others", pa.string())]
)
"""The columns of an annotated file, and what was decided of the row; `others` are its further fields, as JSON."""

EXCHANGED = (("chosen", "rejected"), ("chosen_rewards", "rejected_rewards"))
NEGATED = ("strength_mean", "margin", "gold_margin")


def write_clean(
    source: Source,
    votes: Votes,
    targets: Targets,
    decision: NDArray[np.str_],
    why: Mapping[int, str],
    not_voted: Mapping[int, str],
    clean: Path,
    set_aside: Path,
) -> Counter[str]:
    """Write the two files.

    Args:
        source: all rows, good and bad.
        votes: on N of them.
        targets: (N,) what was decided that they are trained towards.
        decision: (N,) the same in a word, one of `policies.DECISIONS`.
        why: pair -> the reason.
        not_voted: row of the source -> why nobody could vote on it; such rows are set aside.
        clean: a `.parquet` file for what is kept, flipped and softened.
        set_aside: the same for the rest.

    Returns:
        How many rows of the source became what; they sum to all rows read.
    """
    pair_of = {int(row): place for place, row in enumerate(votes.pairs.source_row)}
    turned = is_turned(targets)
    counts = Counter[str]()

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(source):
            i = pair_of.get(number)
            if i is None:
                said = f"not voted on: {not_voted[number]}"
                written = _unvoted(row) | {"decision": "set aside", "why": said}
            else:
                assert isinstance(row, PairRow)
                label, margin, weight = (float(values[i]) for values in (targets.label, targets.margin, targets.weight))
                row = replace(row, label=label, margin=None if row.margin is None else margin, weight=weight)
                written = columns_of(row, i, votes) | _others(row)
                written = _exchanged(written) if turned[i] and decision[i] != "set aside" else written
                written |= {"decision": str(decision[i]), "why": why[i]}
            counts[str(written["decision"])] += 1
            yield written

    with ExitStack() as stack:
        writers = [
            stack.enter_context(pq.ParquetWriter(stack.enter_context(draft_of(path)), CLEAN_SCHEMA))
            for path in (clean, set_aside)
        ]
        stream = rows()
        while chunk := list(islice(stream, CHUNK_ROWS)):
            for is_aside, writer in zip((False, True), writers, strict=True):
                part = [row for row in chunk if (row["decision"] == "set aside") == is_aside]
                if part:
                    writer.write_table(pa.Table.from_pylist(part, schema=CLEAN_SCHEMA))
    return counts


def _exchanged(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its responses in each other's place, and all that is told of chosen over rejected turned
    round.
    """
    turned = dict(row)
    for first, second in EXCHANGED:
        turned[first], turned[second] = row[second], row[first]
    for name in NEGATED:
        turned[name] = None if row[name] is None else -row[name]
    turned["votes"] = [-vote for vote in row["votes"]]
    turned["label"] = 1 - row["label"]
    turned["clean"] = None if row["clean"] is None else not row["clean"]
    return turned


def _others(row: PairRow) -> dict[str, Any]:
    others = json.dumps(dict(row.others), ensure_ascii=False, sort_keys=True, default=str) if row.others else None
    return {"where": row.where or None, "others": others}


def _unvoted(row: PairRow | BadRow) -> dict[str, Any]:
    """Return the columns of a row that has no votes; of one that cannot be read, its place alone."""
    if isinstance(row, BadRow):
        return {"where": row.where}
    return columns_of(row) | _others(row)
