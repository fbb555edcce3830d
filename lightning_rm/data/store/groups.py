"""Tokenised groups of responses on disk, read in place: an Arrow file beside those of pairs, and built like them.

The file holds whole conversations as token ids, and the gold rewards and votes of the responses where there are any.
Nothing here knows a tokenizer or where the groups came from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightning_rm.data.store.report import DataReport
from lightning_rm.data.store.table import open_table
from lightning_rm.tokens import Sample

GROUP_VERSION = "groups 6"
"""Changes whenever the file's columns, or what they hold, change."""

GROUP_SCHEMA = pa.schema(
    [
        ("ids", pa.list_(pa.list_(pa.int32()))),  # a list a response, two different ones at least
        ("prompt_length", pa.int32()),
        ("gold", pa.list_(pa.float64())),  # one a response, or empty
        ("votes", pa.list_(pa.list_(pa.float64()))),  # a list of M a response, or empty
        ("id", pa.string()),
        ("source_row", pa.int64()),  # the group's place among all rows of its source
    ]
)
"""One row a group. A last batch without rows carries the report and a note on the responses as its metadata."""


class GroupDataset:
    """N tokenised groups of responses, each of two different ones at least.

    Args:
        path: the Arrow file that `prepare_groups` wrote.
        name: what this data set is called in reports, and what its batches carry.
        places: what the source's rows stand in now, as in `PairDataset`.

    Attributes:
        num_responses: (N,) int64, responses of each group.
        source_row: (N,) int64, each group's place among all rows, good and bad, of its source.
        report: what became of every row of the source.

    Raises:
        ValueError, KeyError, OSError: if the file is not whole or is another kind of file.
    """

    def __init__(self, path: Path | str, name: str = "responses", places: Sequence[str] = ()) -> None:
        self.path, self.name = Path(path), name
        table, metadata = open_table(self.path, GROUP_SCHEMA, "tokenised groups")
        self._table = table
        self._places = tuple(places)
        self._moved = dict(zip(json.loads(metadata[b"places"]), places, strict=False))
        report, note = DataReport.from_json(metadata[b"report"].decode()), metadata[b"note"].decode()
        report = report.moved(self._moved)
        self.report = replace(report, name=name, notes=[*report.notes, f"{name}: {note}"])
        self.source_row: NDArray[np.int64] = np.array(table["source_row"].to_numpy())
        lengths: list[NDArray[np.int64]] = [np.diff(chunk.offsets.to_numpy()) for chunk in table["ids"].chunks]
        self.num_responses: NDArray[np.int64] = np.concatenate(lengths).astype(np.int64)

    def __len__(self) -> int:
        return len(self.source_row)

    def __reduce__(self) -> tuple[Any, ...]:
        return GroupDataset, (self.path, self.name, self._places)

    def sample(self, i: int) -> Sample:
        """Return the token sequences of group `i`, one a response."""
        sequences = tuple(response.values.to_numpy().tolist() for response in self._table["ids"][i])
        return Sample(sequences, self._table["prompt_length"][i].as_py())

    def gold(self, i: int) -> tuple[float, ...]:
        """Return the gold reward of each response of group `i`; empty where nobody knows."""
        return tuple(self._table["gold"][i].as_py())

    def votes(self, i: int) -> tuple[tuple[float, ...], ...]:
        """Return, for each response of group `i`, the reward each of M voters gives it; empty where no voter was
        asked.
        """
        return tuple(map(tuple, self._table["votes"][i].as_py()))
