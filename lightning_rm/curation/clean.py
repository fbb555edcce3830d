"""Writes every row of the source to one of two files, what to train on and what was set aside; each row says why.

The rows that were voted on also go to the file of annotated pairs, as they are: the source is read once for all three,
since reading it is most of the work. A flipped row has its responses exchanged, so that `chosen` is the better one for
whoever reads the file: training on it does what the treatment would. It knows rows and decisions; no votes are
made here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from lightning_rm.annotation.files import SCHEMA, AnnotatedFormat, columns_of
from lightning_rm.annotation.votes import Votes
from lightning_rm.curation.decide import Decided
from lightning_rm.data.rows import BadRow, PairRow, Source
from lightning_rm.data.store.pair_rows import CHUNK_ROWS, OtherColumns
from lightning_rm.drafts import draft_of
from lightning_rm.parquet_files import parquet_writer
from lightning_rm.strength import Targets
from lightning_rm.strength.policies import is_turned

CLEAN_SCHEMA = pa.schema(
    [*SCHEMA, ("decision", pa.string()), ("why", pa.string()), ("where", pa.string()), ("others", pa.string())]
)
"""The columns of an annotated file, and what was decided of the row; `others` are its further fields, as JSON."""

SET_ASIDE = "set aside"

EXCHANGED = (("chosen", "rejected"), ("chosen_rewards", "rejected_rewards"))
NEGATED = ("strength_mean", "margin", "gold_margin")


class CleanFiles(NamedTuple):
    """The three Parquet files.

    Args:
        strength: all rows that were voted on, as they are.
        clean: what is kept, flipped and softened.
        set_aside: the rest.
    """

    strength: Path
    clean: Path
    set_aside: Path

    @classmethod
    def within(cls, folder: Path) -> CleanFiles:
        """Return the files of a folder."""
        return cls(*(folder / f"{name}.parquet" for name in cls._fields))


def write_clean(
    source: Source,
    votes: Votes,
    decided: Decided,
    not_voted: Mapping[int, str],
    others: OtherColumns,
    files: CleanFiles,
) -> Counter[str]:
    """Write the three files, each whole or not at all.

    Args:
        source: all rows, good and bad.
        votes: on N of them.
        decided: what becomes of these N.
        not_voted: row of the source -> why nobody could vote on it; such rows are set aside.
        others: the further fields of the rows that were voted on.
        files: to write.

    Returns:
        The number of rows for each decision; they sum to all rows read.
    """
    pair_of = {int(row): place for place, row in enumerate(votes.pairs.source_row)}
    turned = is_turned(decided.targets)
    counts = Counter[str]()
    form = AnnotatedFormat(votes, others)
    schemas = {files.strength: form.schema, files.clean: CLEAN_SCHEMA, files.set_aside: CLEAN_SCHEMA}
    stream = enumerate(source)
    with ExitStack() as stack:
        writers = {
            path: stack.enter_context(parquet_writer(stack.enter_context(draft_of(path)), schema))
            for path, schema in schemas.items()
        }
        while chunk := list(islice(stream, CHUNK_ROWS)):
            parts: dict[Path, list[dict[str, Any]]] = {path: [] for path in schemas}
            for number, row in chunk:
                i = pair_of.get(number)
                if i is None:
                    said = f"not voted on: {not_voted[number]}"
                    decision, written = SET_ASIDE, _unvoted(row) | {"why": said}
                else:
                    assert isinstance(row, PairRow)
                    decision, columns = str(decided.decision[i]), columns_of(row, i, votes)
                    parts[files.strength].append(columns | form.others_of(row))
                    written = columns | _targets(row, i, decided.targets) | _others(row) | {"why": decided.why[i]}
                    written = _exchanged(written) if turned[i] and decision != SET_ASIDE else written
                counts[decision] += 1
                file = files.set_aside if decision == SET_ASIDE else files.clean
                parts[file].append(written | {"decision": decision})
            for path, part in parts.items():
                if part:
                    writers[path].write_table(pa.Table.from_pylist(part, schema=schemas[path]))
    return counts


def _targets(row: PairRow, i: int, targets: Targets) -> dict[str, float | None]:
    """Return what pair i is trained towards; a row that names no margin gets none."""
    label, margin, weight = (float(values[i]) for values in (targets.label, targets.margin, targets.weight))
    return {"label": label, "margin": None if row.margin is None else margin, "weight": weight}


def _exchanged(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its responses exchanged, and all that compares chosen to rejected turned round."""
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
    return {"where": row.origin or None, "others": others}


def _unvoted(row: PairRow | BadRow) -> dict[str, Any]:
    """Return the columns of a row that has no votes; of one that cannot be read, its place alone."""
    if isinstance(row, BadRow):
        return {"where": row.origin}
    return columns_of(row) | _others(row)
