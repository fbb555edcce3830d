"""Rows that grow: what a disk has damaged is not gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_rm.rlhf.lines import GrowingLines
from tests.test_checksums import flip

ROWS = [{"response": f"answer {number}"} for number in range(6)]
SETTINGS = {"k": 2}


def begun(path: Path) -> GrowingLines:
    """Four of six rows."""
    lines = GrowingLines(path, SETTINGS)
    assert lines.open(6, 2) == 0
    for start in (0, 2):
        lines.append(ROWS[start : start + 2])
    return lines


def test_a_bit_that_flips_in_a_row_is_found_before_more_are_written(tmp_path: Path) -> None:
    """Another letter would be a response like any other."""
    path = tmp_path / "said.jsonl"
    begun(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        flip(path, place, bit=place % 8)
        with pytest.raises(ValueError, match=r"said.jsonl' is there already, and its rows are not those that were"):
            GrowingLines(path, SETTINGS).open(6, 2)
    path.write_bytes(whole)
    assert GrowingLines(path, SETTINGS).open(6, 2) == 4
    flip(path, 3)
    assert GrowingLines(path, SETTINGS).open(6, 2, overwrite=True) == 0


def test_rows_that_a_kill_cut_or_did_not_note_are_gone_on_from(tmp_path: Path) -> None:
    """Four rows are noted; six with half a seventh, three and a half, and a note of before there were checksums."""
    path = tmp_path / "said.jsonl"
    begun(path)
    whole, note = path.read_bytes(), path.with_name("said.jsonl.json")
    noted = json.loads(note.read_text())
    assert noted["written"]["bytes"] == len(whole)
    longer = whole + b"".join(json.dumps(row).encode() + b"\n" for row in ROWS[4:])
    for content, kept in ((longer, 6), (longer[:-5], 4), (whole[:-5], 2), (b"", 0)):
        path.write_bytes(content)
        note.write_text(json.dumps(noted))
        lines = GrowingLines(path, SETTINGS)
        assert lines.open(6, 2) == kept
        for start in range(kept, 6, 2):
            lines.append(ROWS[start : start + 2])
        assert list(lines.rows()) == ROWS
        assert json.loads(note.read_text())["written"]["bytes"] == len(longer)
        assert GrowingLines(path, SETTINGS).open(6, 2) == 6
    note.write_text(json.dumps(SETTINGS))
    assert GrowingLines(path, SETTINGS).open(6, 2) == 6
