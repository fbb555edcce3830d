"""Parquet whose pages have checksums: a byte that a disk flips is an error, where it would be another number or text.

Parquet has a place for a CRC-32 of each page, which pyarrow neither writes nor compares unless it is asked to. Files
without any, as others write them, are read as they are. This file knows Parquet; no columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq


def open_parquet(file: Path | BinaryIO, **options: Any) -> pq.ParquetFile:
    """Open a file to read pieces of it, as `pyarrow.parquet.ParquetFile` does.

    Raises:
        ArrowException, OSError: for a file that is damaged, also where a damaged page is read.
    """
    return pq.ParquetFile(file, page_checksum_verification=True, **options)


def read_parquet(file: str | Path, **options: Any) -> Any:
    """Return a file as a table, as `pyarrow.parquet.read_table` does.

    Raises:
        ArrowException, OSError: for a file that is damaged.
    """
    return pq.read_table(file, page_checksum_verification=True, **options)


def parquet_writer(file: Path, schema: Any) -> pq.ParquetWriter:
    """Open a file to write tables to, one after the other."""
    return pq.ParquetWriter(file, schema, write_page_checksum=True)


def write_parquet(table: Any, file: Path) -> None:
    """Write a table whole."""
    pq.write_table(table, file, write_page_checksum=True)
