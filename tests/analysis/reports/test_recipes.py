from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.history import Curve
from lightning_rm.analysis.plots.recipes import recipe_curves
from lightning_rm.analysis.reports.recipes import decile_figure, decile_report, recipe_report
from lightning_rm.commands.analyze import analyze
from tests.analysis.made_runs import write_curves, write_run
from tests.commands.test_conf import composed
from tests.float64 import same


def test_runs_without_a_csv_are_in_the_table_and_not_in_the_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    analyze(composed(f"recipes={tmp_path}", "metrics=[ood/accuracy]", f"out={tmp_path}/out", command="analyze"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "a 2 964 to 1,000 0.5500 0.0707" in shown
    assert shown.endswith(" ".join(map(str, written)))


def test_two_modules_of_one_name_are_two_recipes(tmp_path: Path) -> None:
    """Their mean, .6, was one recipe's; so was that of a decile."""
    for module, accuracy in (("a.BaselineRM", 0.5), ("a.MetaRM", 0.7)):
        settings = {"module": {"_target_": module}, "treatment": {"decile": {"number": 3}}}
        write_run(tmp_path / module, "baseline", 0, settings, test={"accuracy": accuracy, "num_pairs": 9.0})
    runs = find_runs("recipes", tmp_path)
    table, *_ = recipe_report(runs, ["accuracy"], tmp_path / "recipes")
    with table.open() as file:
        rows = [(row["recipe"], row["test/accuracy"]) for row in csv.DictReader(file)]
    assert rows == [("baseline module=BaselineRM", "0.5000"), ("baseline module=MetaRM", "0.7000")]
    table, *_ = [path for path in decile_report(runs, "accuracy", None, tmp_path / "out") if path.suffix == ".csv"]
    assert table.read_text().splitlines()[1:] == [
        '3,"baseline module=BaselineRM, as labelled",1,0.5000,', '3,"baseline module=MetaRM, as labelled",1,0.7000,',
    ]  # fmt: skip


def test_a_run_of_one_validation_is_a_dot_without_a_band() -> None:
    (axes,) = recipe_curves({"val/accuracy": {"a": [Curve(np.array([9]), np.array([0.6]))]}}, 10).axes
    (line,) = axes.get_lines()
    assert line.get_marker() == "o"
    assert np.asarray(line.get_data()).ravel().tolist() == same([9, 0.6])
    assert not axes.collections


def test_runs_that_were_logged_apart_are_drawn_and_the_pairs_of_all_are_said(tmp_path: Path) -> None:
    """Of two recipes one logged its two seeds at other steps; a run of the other lacks the curve of the last column."""
    for name, seed, first, num_pairs in (("a", 0, 1, 100), ("a", 1, 11, 100), ("b", 0, 1, 12_000), ("b", 1, 1, 12_000)):
        run = tmp_path / name / str(seed)
        write_run(run, name, seed, {}, train={"num_pairs": num_pairs}, test={"accuracy": 0.5})
        curves = {"train/loss": [(first, 0.7), (first + 1, 0.6)]}
        write_curves(run, curves | ({"val/accuracy": [(first, 0.55)]} if (name, seed) != ("b", 1) else {}))
    table, _, _, drawn = recipe_report(find_runs("recipes", tmp_path), ["accuracy"], tmp_path / "out")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["curves"], row["val/accuracy, last"]) for row in rows] == [("2", "0.5500"), ("1", "0.5500")]
    assert "100 to 12,000 training pairs" in text_of(drawn)


def test_deciles_of_another_metric_are_called_by_it(tmp_path: Path) -> None:
    """It stood there as accuracy, with the chance of one half; and the runs of two names were one series."""
    for name in "ab":
        for number in (0, 1):
            settings = {"treatment": {"decile": {"number": number}, "flip": None}}
            result = {"nll": number + (name == "b") * 0.5, "num_pairs": 9.0}
            write_run(tmp_path / name / str(number), name, 0, settings, test=result)
    runs = find_runs("deciles", tmp_path)
    (axes,) = decile_figure(runs, "nll").axes
    assert (axes.get_ylabel(), axes.get_title(loc="left")) == (
        "test NLL", "Training on one tenth, NLL over 9 test pairs",
    )  # fmt: skip
    assert {line.get_label(): list(np.asarray(line.get_ydata())) for line in axes.get_lines()} == {
        "a, as labelled": [0, 1], "b, as labelled": [0.5, 1.5],
    }  # fmt: skip
    table, *_ = [path for path in decile_report(runs, "nll", None, tmp_path / "out") if path.suffix == ".csv"]
    assert table.read_text().splitlines()[:2] == ["decile,trained,seeds,nll,nll sd", '0,"a, as labelled",1,0.0000,']


def text_of(svg: Path) -> str:
    """The words of a figure, whose letters are drawn: matplotlib says them in comments."""
    return svg.read_text()
