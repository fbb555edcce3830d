"""What a kill leaves beside a finished output is removed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lightning_rm.scoring.parts import MARK, Part, Parts, remove_left


def left_beside(out: Path) -> Path:
    """Write an output and what its parts were, an hour older; the folder of parts."""
    root = out.with_name(f"{out.name}.parts")
    Parts(root / "settings").write(0, Part(np.ones((2, 1)), {}))
    out.write_text("written")
    for path in (root / "settings" / "000000.npz", root / MARK):
        os.utime(path, (0, out.stat().st_mtime - 3600))
    return root


@pytest.mark.parametrize("gone", [(), ("settings/000000.npz",), ("settings/000000.npz", MARK, "settings")])
def test_parts_are_removed_though_a_kill_came_while_they_were(gone: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    root = left_beside(out)
    for name in gone:
        (root / name).rmdir() if name == "settings" else (root / name).unlink()
    remove_left(root, out)
    remove_left(root, out)  # there is nothing left to do
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_parts_of_a_run_that_makes_the_output_anew_stay_and_so_does_what_is_not_ours(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    root = left_beside(out)
    os.utime(root / "settings" / "000000.npz", (0, out.stat().st_mtime + 3600))
    remove_left(root, out)
    assert (root / "settings" / "000000.npz").is_file()
    other = tmp_path / "other.parts"
    other.mkdir()
    (other / "thesis.txt").touch()
    os.utime(other / "thesis.txt", (0, 0))
    remove_left(other, out)
    assert (other / "thesis.txt").is_file()
