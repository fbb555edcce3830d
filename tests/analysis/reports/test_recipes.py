from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.history import Curve
from lightning_rm.analysis.plots.recipes import recipe_curves
from lightning_rm.analysis.reports.recipes import recipe_report
from tests.analysis.made_runs import write_curves, write_run
from tests.float64 import same


def test_runs_without_a_csv_are_in_the_table_and_not_in_the_curves(tmp_path: Path) -> None:
    for name, seed, has_curves in (("a", 0, True), ("a", 1, False), ("b", 0, False)):
        run = tmp_path / name / str(seed)
        num_pairs = 1000 if name == "a" and seed else 964
        write_run(run, name, seed, {}, train={"num_pairs": num_pairs}, test__ood={"accuracy": 0.5 + 0.1 * seed})
        if has_curves:
            write_curves(run, {"train/loss": [(0, 0.7), (1, 0.6)], "val/accuracy": [(1, 0.55)]})
    written = recipe_report(find_runs("recipes", tmp_path), ["ood/accuracy"], tmp_path / "out")
    assert [path.name for path in written] == ["recipes.csv", "recipes.md", "recipes.png", "recipes.svg"]
    with written[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["curves"] for row in rows] == ["1", "0"]
    assert [row["pairs"] for row in rows] == ["964 to 1,000", "964"]
    assert [row["test/ood/accuracy"] for row in rows] == ["0.5500", "0.5000"]
    assert [row["val/accuracy, last"] for row in rows] == ["0.5500", ""]


def test_a_run_of_one_validation_is_a_dot_without_a_band() -> None:
    (axes,) = recipe_curves({"val/accuracy": {"a": [Curve(np.array([9]), np.array([0.6]))]}}, 10).axes
    (line,) = axes.get_lines()
    assert line.get_marker() == "o"
    assert np.asarray(line.get_data()).ravel().tolist() == same([9, 0.6])
    assert not axes.collections
