"""The annotated file that is reviewed: numbers and ids in memory, texts read from the disk where somebody looks.

It reads Parquet in pieces and never holds more than a few; a search goes through the file from its beginning.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from lightning_rm.data.formats.fields import Raw
from lightning_rm.data.formats.pairs import parse_row
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.arrow import arrow_rows
from lightning_rm.digests import state_of
from lightning_rm.parquet_files import open_parquet
from lightning_rm.reviewing.sides import AskError

TEXTS = ("prompt", "chosen", "rejected")
NUMBERS = ("id", "subset", "strength_mean", "strength_std", "votes")

PIECE_ROWS = 500
"""Rows that are read at a time."""

NUM_PIECES = 4
"""Pieces that stay in memory."""

compute: Any = pyarrow.compute  # its functions are made at import: no type checker knows them

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class PairFile:
    """N annotated pairs in a file, as `annotate` writes it.

    Attributes:
        path: of the file.
        ids: (N,) what the pairs are called.
        subset: (N,) of each pair.
        mean: (N,) strength.
        std: (N,) standard deviation of the votes.

    Raises:
        ValueError: if there is no such file, or it lacks what `annotate` writes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._state = state_of(self.path)
            self._file = open_parquet(self.path, pre_buffer=False)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"strength={path}: {_reason(self.path, error)}; {ANNOTATE}") from error
        names = self._file.schema_arrow.names
        if lacking := [name for name in (*TEXTS, *NUMBERS) if name not in names]:
            raise ValueError(f"strength={path} has no {' and no '.join(lacking)}: {ANNOTATED}")
        numbers: Any = self._file.read(columns=list(NUMBERS))
        try:
            self.ids: list[str] = numbers["id"].cast(pa.string()).to_pylist()
            self.subset: list[str] = [name or "all" for name in numbers["subset"].cast(pa.string()).to_pylist()]
            self.mean: Floats = np.asarray(numbers["strength_mean"].cast(pa.float64()), np.float64)
            self.std: Floats = np.asarray(numbers["strength_std"].cast(pa.float64()), np.float64)
            self._votes: Any = numbers["votes"].cast(pa.list_(pa.float64())).combine_chunks()
        except pa.ArrowException as error:
            raise ValueError(
                f"strength={path} has other columns ({str(error).splitlines()[0]}): {ANNOTATED}"
            ) from error
        if not self.ids:
            raise ValueError(f"strength={path} has no pairs; {ANNOTATE}")
        if None in self.ids or not (np.isfinite(self.mean) & np.isfinite(self.std)).all():
            raise ValueError(f"strength={path} has rows without id, strength_mean or strength_std: {ANNOTATED}")
        groups = range(self._file.num_row_groups)
        self._starts = np.cumsum([0, *(self._file.metadata.row_group(group).num_rows for group in groups)])
        self._pieces: OrderedDict[tuple[int, int, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Id -> the first row that has it."""
        return {name: row for row, name in reversed(list(enumerate(self.ids)))}

    @cached_property
    def vote_limit(self) -> float:
        """What nearly all votes lie within, on either side of 0: the scale to draw them on."""
        values = np.abs(np.asarray(self._votes.flatten(), np.float64))
        values = values[np.isfinite(values)]
        return float(np.quantile(values, 0.99)) if len(values) else 1.0

    def votes(self, row: int) -> list[float]:
        """Return the votes on a pair, without those that are missing."""
        return [vote for vote in self._votes[row].as_py() or [] if vote is not None and math.isfinite(vote)]

    def pair(self, row: int) -> PairRow:
        """Return a pair with its texts.

        Raises:
            ValueError: if the row cannot be read.
        """
        found = parse_row(self._raw(row, TEXTS), f"{self.path} row {row}")
        if isinstance(found, BadRow):
            raise ValueError(f"{found.origin} cannot be read: {found.detail}")
        return found

    def beginning(self, row: int, num: int) -> str:
        """Return the first characters of what a pair's prompt says last, on one line.

        Where it has no prompt, return those of its id.
        """
        raw: Any = self._raw(row, TEXTS[:1])["prompt"]
        text = raw if isinstance(raw, str) or not raw else raw[-1]["content"]
        return " ".join((text or self.ids[row])[: 2 * num].split())[:num]

    def search(self, query: str) -> Iterator[tuple[int, list[int]]]:
        """Look for words in ids and texts, upper and lower case alike: after each piece the rows read, and those found.

        Args:
            query: stands in the text as it is.

        Raises:
            AskError: if the file has changed since it was opened.
        """
        with self._as_it_was():
            batches = open_parquet(self.path, pre_buffer=False).iter_batches(
                PIECE_ROWS, columns=["id", *TEXTS], use_threads=False
            )
        start = 0
        while start < len(self):
            with self._as_it_was():
                batch = next(batches)
            is_found = np.asarray(compute.match_substring(batch["id"].cast(pa.string()), query, ignore_case=True))
            for name in TEXTS:
                is_found = is_found | _has(batch[name], query)
            yield start + len(batch), (start + np.flatnonzero(is_found)).tolist()
            start += len(batch)

    def _raw(self, row: int, columns: Sequence[str]) -> Raw:
        """Return some columns of a row; the rows about it are read with it, and those read last are kept."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        number, place = divmod(row - int(self._starts[group]), PIECE_ROWS)
        key = group, number, len(columns)
        with self._lock:
            if key not in self._pieces:
                with self._as_it_was():
                    batches = self._file.iter_batches(PIECE_ROWS, row_groups=[group], columns=list(columns))
                    piece = next(itertools.islice(batches, number, None))
                self._pieces[key] = piece
            self._pieces.move_to_end(key)
            while len(self._pieces) > NUM_PIECES:
                self._pieces.popitem(last=False)
            piece = self._pieces[key]
        return next(arrow_rows(piece.slice(place, 1)))

    @contextmanager
    def _as_it_was(self) -> Generator[None]:
        """Refuse what is read of another file than the one that was opened: ids and votes of one pair, texts of
        another.

        Raises:
            AskError: if the file was written again, replaced or removed since.
        """
        try:
            yield
        except (OSError, pa.ArrowException, StopIteration):
            self._check_unchanged()
            raise
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        try:
            now = state_of(self.path)
        except OSError:
            now = None
        if now != self._state:
            raise AskError(
                f"{self.path} is not the file any more that this review began with: end it and start it again; "
                "decisions stay"
            )


ANNOTATE = "what `lightning-rm annotate voters=... data=jsonl data.file=PAIRS out=FILE` writes, with texts and votes"
ANNOTATED = f"what is reviewed is {ANNOTATE}"


def _reason(path: Path, error: BaseException) -> str:
    return "there is no such file" if not path.exists() else f"it is not a Parquet file ({str(error).splitlines()[0]})"


def _has(column: Any, query: str) -> Bools:
    """Return which rows of a column of texts, or of turns, have a query in them."""
    if not pa.types.is_nested(column.type):
        texts = column if pa.types.is_large_string(column.type) else column.cast(pa.string())
        found = compute.match_substring(texts, query, ignore_case=True)
        return np.asarray(compute.fill_null(found, False), bool)
    hits = compute.match_substring(column.flatten().field("content"), query, ignore_case=True)
    rows = np.asarray(compute.list_parent_indices(column))[np.asarray(compute.fill_null(hits, False), bool)]
    is_found = np.zeros(len(column), bool)
    is_found[rows] = True
    return is_found
