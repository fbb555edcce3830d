"""Pairs from files. A source finds raw rows and hands each to `parse_row`; it knows no format and no tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_rm.data.formats.fields import Columns
from lightning_rm.data.formats.responses import Prefill
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.named import named_sources
from lightning_rm.data.sources.options import RowOptions, Where
from lightning_rm.data.sources.readers import find_files, read_file
from lightning_rm.digests import sha256_of

Paths = str | Path | Sequence[str | Path]


class FileSource:
    """Pairs from files: JSONL (`.jsonl`, `.ndjson`), JSON arrays (`.json`), both also as `.gz`, and Parquet.

    Args:
        path: a path, a glob or a list of them.
        columns: as in `RowOptions`.
        where: as in `RowOptions`.
        format: as in `RowOptions`.
        subset: as in `RowOptions`.
        prefill: as in `RowOptions`.

    Raises:
        ValueError: if there is no such file; while reading, if a file is damaged.
    """

    def __init__(
        self,
        path: Paths,
        *,
        columns: Columns | None = None,
        where: Where | None = None,
        format: str = "auto",
        subset: str | None = None,
        prefill: Prefill = "error",
    ) -> None:
        self.files = find_files(path)
        self.options = RowOptions(columns, where, format, subset, prefill)

    @property
    def places(self) -> list[str]:
        """The files, in order."""
        return list(map(str, self.files))

    def fingerprint(self) -> str:
        """Return a digest of the files' bytes, in order, and of the options."""
        return self.options.digest("files", file_digests(self.files))

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows of every file in order."""
        return self.options.read(record for file in self.files for record in read_file(file))


def file_sources(
    path: Paths | Mapping[str, Paths | Mapping[str, Any]] | None,
    *,
    columns: Columns | None = None,
    where: Where | None = None,
    format: str = "auto",
    prefill: Prefill = "error",
) -> FileSource | dict[str, FileSource] | None:
    """Return one source, or several named ones, from what a user writes in a configuration.

    Args:
        path: a path, a glob or a list of them for one source; for several name -> such, or name -> {path: such, ...}
            with options of its own: columns, where, format, prefill. None for none.
        columns: as in `RowOptions`, for every source that has none of its own.
        where: the same.
        format: the same.
        prefill: the same.

    Raises:
        ValueError: for an option that there is not, and as `FileSource` does.
    """
    options = {"columns": columns, "where": where, "format": format, "prefill": prefill}
    return named_sources(FileSource, "path", path, options)


def file_digests(files: Sequence[Path]) -> list[list[str]]:
    """Return, for each file, its suffixes, which say how to read it, and a digest of its bytes."""
    return [["".join(file.suffixes[-2:]), sha256_of(file)] for file in files]
