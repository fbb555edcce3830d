"""Weighed pairs as a Parquet file, which is itself a data source: its columns, and where its weights come from.

It knows rows and numbers; no policy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_rm.data.rows import PairRow
from lightning_rm.data.store.pair_rows import CHUNK_ROWS, PAIR_COLUMNS, OtherColumns, pair_columns
from lightning_rm.data.store.report import DataReport
from lightning_rm.drafts import draft_of
from lightning_rm.parquet_files import parquet_writer
from lightning_rm.rlhf.importance import Importance, LogProbs
from lightning_rm.told import object_of

ADDED = ("importance", "policy_log_probs", "reference_log_probs")
"""Columns beside `weight`: its factor, and the log-probabilities of chosen and rejected that it comes from."""

COLUMNS = (
    *PAIR_COLUMNS,
    ("strength_mean", pa.float64()),
    ("strength_std", pa.float64()),
    ("votes", pa.list_(pa.float64())),
    ("importance", pa.float64()),
    ("policy_log_probs", pa.list_(pa.float64())),
    ("reference_log_probs", pa.list_(pa.float64())),
)

SETTINGS = b"lightning_rm.weights"
"""The key of the file's metadata for the settings that its pairs were weighed by, and a summary, as JSON."""


@dataclass(frozen=True)
class Weighed:
    """What came out of weighing N pairs.

    Args:
        path: of the file written.
        importance: the factors of their weights.
        policy: their log-probabilities under the policy.
        reference: under the policy that wrote them; None where none was named.
        report: what became of every row of the source.
    """

    path: Path
    importance: Importance
    policy: LogProbs
    reference: LogProbs | None
    report: DataReport

    def summary(self) -> dict[str, float]:
        """Return the numbers of pairs, the effective ones, and those whose weight was bounded."""
        return {
            "num_pairs": len(self.importance.weight),
            "effective": self.importance.effective,
            "num_clipped": int(self.importance.clipped.sum()),
        }


def write_weighed(weighed: Weighed, rows: Iterable[PairRow], others: OtherColumns, settings: Mapping[str, Any]) -> None:
    """Write pairs with their weights, whole or not at all.

    Args:
        weighed: what came out.
        rows: the N pairs, in its order.
        others: the further fields of these rows.
        settings: what they were weighed by.
    """
    told = json.dumps({**settings, **weighed.summary()})
    schema = pa.schema([*COLUMNS, *others.fields()]).with_metadata({SETTINGS: told})
    numbered = enumerate(rows)
    with draft_of(weighed.path) as draft, parquet_writer(draft, schema) as writer:
        while chunk := list(islice(numbered, CHUNK_ROWS)):
            columns = [_columns(row, i, weighed) | others.of(row) for i, row in chunk]
            writer.write_table(pa.Table.from_pylist(columns, schema=schema))


def _columns(row: PairRow, i: int, weighed: Weighed) -> dict[str, Any]:
    factor = float(weighed.importance.weight[i])
    return pair_columns(row) | {
        "weight": row.weight * factor,
        "strength_mean": row.strength_mean,
        "strength_std": row.strength_std,
        "votes": list(row.votes) or None,
        "importance": factor,
        "policy_log_probs": weighed.policy.total[i].tolist(),
        "reference_log_probs": None if weighed.reference is None else weighed.reference.total[i].tolist(),
    }


def weighed_by(path: Path) -> dict[str, Any]:
    """Return the policies and settings that a file's pairs were weighed by, and the summary; empty if it has none."""
    return object_of((pq.read_schema(path).metadata or {}).get(SETTINGS, b"{}"), path)
