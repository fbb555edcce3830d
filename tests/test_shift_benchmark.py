"""`benchmarks/shift.py`: what its measures and its tables make of numbers that can be added up by hand."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_rm.data.rows import GroupRow, Message

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_accuracy_is_counted_by_distance_in_gold() -> None:
    """Gold 9, 8.5, 5: distances .5, 4, 3.5. Rewards 0, 1, 0: wrong, a tie, right."""
    on_groups = importlib.import_module("paper_parts.policies").on_groups
    turn = (Message(role="assistant", content="x"),)
    group = GroupRow(prompt=(), responses=(turn,) * 3, id="a", prompt_id="a", gold=(9.0, 8.5, 5.0))
    found = on_groups(np.array([[0.0, 1.0, 0.0]]), [group])
    assert found["accuracy_above_0"] == 0.0
    assert found["accuracy_above_2"] == 0.75
    assert (found["pairs_above_0"], found["pairs_above_0.5"], found["pairs_above_2"]) == (1, 0, 2)
    assert "accuracy_above_1" not in found
    assert found["gold_accuracy"] == pytest.approx(0.5, abs=1e-12)


def row(correlation: float, gold: float) -> dict[str, Any]:
    gaps = {"pairs_above_0": 1, "pairs_above_0.5": 0, "pairs_above_1": 0, "pairs_above_2": 3, "accuracy_above_0": 0.5}
    told = {"gold_correlation": correlation, "difference": 0.5, "accuracy_above_2": 0.75, **gaps}
    curve = {"1": 8.9, "4": 9.4, "16": 9.5, "64": gold}
    return {"clean": 0.75, "policy_16": told, "policy_64": told, "own": told, "gold": curve, "proxy": curve}


def test_rows_are_paired_by_world_and_seed(tmp_path: Path) -> None:
    """Of three blocks the differences are .1, .2, .3: .2 -+ .248; the third row has one block and no interval."""
    table = importlib.import_module("shift_table")
    for block, (base, other) in {"0-0": (0.0, 0.1), "1-0": (0.1, 0.3), "2-0": (0.2, 0.5)}.items():
        rows = {"baseline": row(base, 9.4), "fresh": row(other, 9.9 + base / 10)}
        rows |= {"flip": row(base, 9.5)} if block == "0-0" else {}
        (tmp_path / block).mkdir()
        (tmp_path / block / "rows.json").write_text(json.dumps({"rows": rows}))
    lines = table.tables(table.read(tmp_path, "rows"))
    start = lines.index(next(line for line in lines if line.startswith("| less baseline")))
    assert lines[start + 2].split(" | ")[3:5] == ["+0.200 [-0.048, +0.448]"] * 2
    assert lines[start + 2].split(" | ")[5] == "**+0.510 [+0.485, +0.535]**"
    assert "| flip | 1 | +0.000 |" in lines[start + 3]
    start = lines.index(next(line for line in lines if line.startswith("| gold less baseline")))
    # Gold is 9.9 to 9.92 at 64, and 9.4 of baselines, which have 9.5 at 16; the rest is alike.
    assert lines[start + 2].split(" | ")[2:5] == ["+0.000"] * 2 + ["**+0.510 [+0.485, +0.535]**"]
    assert lines[start + 2].split(" | ")[5:] == ["**+0.410 [+0.385, +0.435]**", "64", "0.00 |"]
    assert "| baseline | 0.500 |  |  | 0.750 |" in "\n".join(lines)
