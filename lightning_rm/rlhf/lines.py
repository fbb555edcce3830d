"""JSONL that grows: rows are appended as they are made, and a killed run goes on where it was. It knows no row's form.

Beside `OUT` stands `OUT.json` with the settings that the rows were made by, so that rows of other settings never come
into one file, and with a checksum of the rows so far: another letter in one of them would be a row like any other.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_rm.checksums import crc32_of
from lightning_rm.drafts import naming, write_json
from lightning_rm.told import object_of, read_object

WRITTEN = "written"
"""The key of `OUT.json` with the length of the rows in bytes, and their CRC-32."""


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that grows, and cut off the half of one that a crash left at its end."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return whole.splitlines()


class GrowingLines:
    """A JSONL file and the settings that its rows were made by.

    Args:
        path: of the file.
        settings: plain values; all that the rows depend on.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self._crc32 = 0

    @property
    def settings_path(self) -> Path:
        """Where the settings are kept."""
        return self.path.with_name(f"{self.path.name}.json")

    def open(self, num_rows: int, batch_rows: int, *, overwrite: bool = False) -> int:
        """Make the file ready to go on: new, or cut after its last whole batch of rows.

        Half a line at the end is cut off. So are whole lines of a batch that is not whole, unless the file is complete.

        Args:
            num_rows: rows of a complete file.
            batch_rows: rows that are made together.
            overwrite: begin anew where there is a file of other settings.

        Returns:
            How many rows the file has now.

        Raises:
            ValueError: if there is a file of other settings, or of none, or its rows are not those that were written.
        """
        if self.path.exists() and self.path.stat().st_size and (others := self._others()):
            if not overwrite:
                raise ValueError(f"out={str(self.path)!r} is there already, {others}, or set overwrite=true")
            self.path.unlink()
        with self.path.open("ab+") as file:
            file.seek(0)
            ends = [0]
            for line in file:
                if line.endswith(b"\n"):
                    ends.append(ends[-1] + len(line))
            num_whole = len(ends) - 1
            kept = num_whole if num_whole == num_rows else num_whole - num_whole % batch_rows
            file.truncate(ends[kept])
        self._crc32 = crc32_of(self.path)
        self._note()
        return kept

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows at the end, all of them on disk before it returns."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
        with naming(self.path), self.path.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._crc32 = zlib.crc32(text, self._crc32)
        self._note()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in order."""
        with self.path.open(encoding="utf-8", errors="surrogatepass") as file:
            for line in file:
                yield object_of(line, self.path)

    def _others(self) -> str:
        """Say how the settings of the file there differ from these; empty if they do not."""
        if not self.settings_path.is_file():
            return f"and no {self.settings_path.name} beside it says how it was made; name another file"
        there = read_object(self.settings_path)
        written = there.pop(WRITTEN, None)
        if written is not None and self._is_damaged(written):
            return "and its rows are not those that were written: they are damaged; name another file"
        names = [name for name in there | self.settings if there.get(name) != self.settings.get(name)]
        differences = [f"{name}={there.get(name)}, now {self.settings.get(name)}" for name in names]
        return f"made with {'; '.join(differences)}; give the same, name another file" if differences else ""

    def _is_damaged(self, written: Any) -> bool:
        """Tell whether the rows that were noted are others now; of a file that was cut, none has to be."""
        try:
            size, checksum = int(written["bytes"]), int(written["crc32"], 16)
        except (TypeError, KeyError, ValueError):
            return True
        return self.path.stat().st_size >= size and crc32_of(self.path, size) != checksum

    def _note(self) -> None:
        """Write the settings, and the checksum of the rows so far."""
        written = {"bytes": self.path.stat().st_size, "crc32": f"{self._crc32:08x}"}
        write_json(self.settings_path, self.settings | {WRITTEN: written})
