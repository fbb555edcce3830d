"""Files whose pages have checksums: no byte that flips becomes another value."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import lightning_rm
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.parquet_files import open_parquet, parquet_writer, read_parquet, write_parquet

NUMBERS = np.random.default_rng(0).normal(size=(100, 2))
TABLE = pa.table({"id": [f"pair {number}" for number in range(100)], "rewards": NUMBERS.tolist()})


@pytest.mark.parametrize("whole", [True, False])
def test_a_flipped_byte_is_an_error_or_changes_nothing(whole: bool, tmp_path: Path) -> None:
    """Of 300 flips without checksums some 250 gave another text or number."""
    path = tmp_path / "table.parquet"
    if whole:
        write_parquet(TABLE, path)
    else:
        with parquet_writer(path, TABLE.schema) as writer:
            for start in (0, 50):
                writer.write_table(TABLE.slice(start, 50))
    data, draw, errors = path.read_bytes(), random.Random(0), 0
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # behind them stands what the file says of itself
    for _ in range(300):
        flipped = bytearray(data)
        flipped[draw.randrange(pages)] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            names = read_parquet(path).column_names
            found = pa.Table.from_batches(open_parquet(path).iter_batches(30)).combine_chunks()
        except (pa.ArrowException, OSError):
            errors += 1
        else:
            columns = [found[name].to_pylist() for name in names]
            assert columns == [column.to_pylist() for column in TABLE.columns]
    assert errors > 280


def test_a_damaged_page_of_a_source_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    rows = [{"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(20)]
    write_parquet(pa.Table.from_pylist(rows), path)
    assert not any(isinstance(row, BadRow) for row in FileSource(path))
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # in the first page
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*CRC checksum"):
        list(FileSource(path))


def test_nothing_else_reads_or_writes_pages() -> None:
    calls = re.compile(r"pq\.(ParquetFile|ParquetWriter|read_table|write_table)\(")
    package = Path(lightning_rm.__file__).parent
    found = {path.name for path in package.rglob("*.py") if calls.search(path.read_text(encoding="utf-8"))}
    assert found == {"parquet_files.py"}
