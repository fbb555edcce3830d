"""Tokenised data on disk: an Arrow file in chunks; the last one is empty and says what there is to say of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lightning_rm.data.store.cache import SEAL_BYTES


def open_table(path: Path, schema: Any, what: str) -> tuple[Any, Mapping[bytes, bytes]]:
    """Return the rows of a file, mapped and not read, and what its last chunk says.

    Args:
        path: the file, with a checksum behind its Arrow bytes (`cache.seal`), which is not compared here.
        schema: the pyarrow schema that it was written with.
        what: what such a file holds.

    Raises:
        ValueError, OSError: if the file is not whole, or has other columns.
    """
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
        if len(whole) <= SEAL_BYTES:
            raise ValueError("it is cut short")
        reader = pa.ipc.open_file(pa.BufferReader(whole.slice(0, len(whole) - SEAL_BYTES)))
        if reader.schema != schema:
            raise ValueError(f"its columns are not those of {what}")
        last = reader.num_record_batches - 1
        said: Any = reader.get_batch_with_custom_metadata(last).custom_metadata
        return pa.Table.from_batches([reader.get_batch(place) for place in range(last)], schema=schema), said
