"""Parquet shards that are read where they lie: on this machine, on the hub, in a bucket; a row group at a time.

Nothing is copied. What is known beforehand is what the files' ends say: their row groups, and how many rows each has.
It knows files and rows; not who reads which of them, nor when.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightning_rm.data.formats.fields import Columns, RowError
from lightning_rm.data.formats.responses import Prefill
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.options import RowOptions, Where
from lightning_rm.data.sources.parquet import parquet_rows
from lightning_rm.data.sources.readers import Record
from lightning_rm.digests import digest
from lightning_rm.parquet_files import open_parquet

FOOTER_BYTES, MAX_BYTES = 2**16, 5 * 2**20
"""The least and the most that are asked for at a time from another machine, beyond what is read: of a row group what it
has, so that an epoch of small ones reads no file twenty times."""

Shards = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class RowGroup:
    """A row group of a shard.

    Args:
        file: the shard's address.
        number: of the group in it.
        start: the place of its first row in the shard.
        num_rows: how many it has.
        num_bytes: of it in the file.
    """

    file: str
    number: int
    start: int
    num_rows: int
    num_bytes: int


class ParquetShards:
    """Preference pairs in Parquet files that are streamed and never copied as a whole.

    Args:
        path: a path, a glob or a list of them, or addresses that fsspec reads:
            `hf://datasets/NAME/data/train-*.parquet` on the hub, where every data set has Parquet shards
            (`hf://datasets/NAME@refs%2Fconvert%2Fparquet/default/train/*.parquet`), `s3://`, `gs://`.
        buffer_pairs: pairs that are shuffled together, after row groups are; as many are in memory.
        columns: as in `RowOptions`.
        where: as in `RowOptions`; a field that no row has leaves out every row.
        format: as in `RowOptions`.
        prefill: as in `RowOptions`.

    Raises:
        ValueError: if there is no such file, or one that is not Parquet.
    """

    def __init__(
        self,
        path: Shards,
        *,
        buffer_pairs: int = 10_000,
        columns: Columns | None = None,
        where: Where | None = None,
        format: str = "auto",
        prefill: Prefill = "error",
    ) -> None:
        if buffer_pairs < 1:
            raise ValueError(f"buffer_pairs={buffer_pairs}: shuffle 1 pair together at least")
        self.files = _found(path)
        self.buffer_pairs = buffer_pairs
        self.options = RowOptions(columns, where, format, None, prefill)

    @cached_property
    def groups(self) -> list[RowGroup]:
        """The row groups of all shards, in order; read from the shards' ends when first asked for.

        Raises:
            ValueError: if a file cannot be read as Parquet.
        """
        found: list[RowGroup] = []
        for file in self.files:
            start = 0
            with _opened(file) as opened, open_parquet(opened) as table:
                metadata = table.metadata
                for number in range(metadata.num_row_groups):
                    group = metadata.row_group(number)
                    sizes = [group.column(place).total_compressed_size for place in range(group.num_columns)]
                    found.append(RowGroup(file, number, start, group.num_rows, sum(sizes)))
                    start += group.num_rows
        found = [group for group in found if group.num_rows]
        if not found:
            raise ValueError(f"{', '.join(self.files[:3])}: the shards have no rows")
        return found

    @property
    def num_rows(self) -> int:
        """Rows of all shards, good and bad."""
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(G + 1,) the place of each group's first row among all rows, and their number."""
        return np.cumsum([0, *(group.num_rows for group in self.groups)])

    def fingerprint(self) -> str:
        """Return a digest of the shards' names and row groups, and of the options: not of their rows, which would have
        to be read.
        """
        groups = [[group.file.rpartition("/")[2], group.number, group.num_rows] for group in self.groups]
        return self.options.digest("shards", digest(groups, 64))

    def read(self, number: int, skip: int = 0) -> Iterator[PairRow | BadRow]:
        """Yield the rows of a row group, good and bad, all but the first few.

        Args:
            number: of the group among all.
            skip: rows to leave out at its start.

        Raises:
            ValueError: if the shard is damaged or cannot be reached.
        """
        group = self.groups[number]
        with _opened(group.file, group.num_bytes) as opened:
            for place, raw in enumerate(parquet_rows(opened, [group.number])):
                if place < skip:
                    continue
                origin = f"{group.file} row {group.start + place}"
                yield (
                    BadRow(origin, raw.reason, raw.detail)
                    if isinstance(raw, RowError)
                    else self.options.parse(Record(origin, raw))
                )

    def name(self, row: int) -> str:
        """Return the place of a row, by its number among all: `pairs-0003.parquet row 17`."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        group = self.groups[number]
        return f"{group.file} row {group.start + row - int(self.starts[number])}"


@contextmanager
def _opened(file: str, num_bytes: int = FOOTER_BYTES) -> Generator[Any]:
    """Open a file for reading, wherever it lies; what goes wrong with it is said in one way.

    Args:
        file: its address.
        num_bytes: of what will be read.
    """
    try:
        system, path = fsspec.core.url_to_fs(file)
        with system.open(path, "rb", block_size=min(max(num_bytes, FOOTER_BYTES), MAX_BYTES)) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error


def _found(path: Shards) -> list[str]:
    """Return the addresses of the files that a path, a glob or a list of them names."""
    if not isinstance(path, str | Path):
        files = [file for item in path for file in _found(item)]
        if not files:
            raise ValueError("an empty list of shards; name one at least")
        return files
    system, pattern = fsspec.core.url_to_fs(str(Path(path).expanduser()) if "://" not in str(path) else str(path))
    is_local = "file" in system.protocol
    try:
        names: list[str] = sorted(system.glob(pattern)) if any(c in pattern for c in "*?[") else [pattern]
        names = [name for name in names if _is_there(system, name)]
    except OSError as error:
        raise ValueError(f"cannot look for shards at {path}: {type(error).__name__}: {error}") from error
    if not names:
        raise ValueError(f"there is no file {path}" + (f" (looked for from {Path.cwd()})" if is_local else ""))
    for name in names:
        if not name.lower().endswith(".parquet"):
            raise ValueError(
                f"{name}: only Parquet is streamed; read it whole with data=jsonl, or write it as Parquet, "
                "datasets.Dataset.from_json(...).to_parquet(...)"
            )
    return names if is_local else [system.unstrip_protocol(name) for name in names]


def _is_there(system: Any, name: str) -> bool:
    """Tell whether there is a file, without asking for what it holds, as `exists` does of a web server."""
    try:
        system.info(name)
    except FileNotFoundError:
        return False
    return True
