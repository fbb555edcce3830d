"""The report on files of few pairs, and of none with strength."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_rm.analysis.reports.strength import read_strength, strength_report
from lightning_rm.commands.analyze import analyze
from tests.commands.test_conf import composed
from tests.figures import draw_nothing
from tests.float64 import same
from tests.toy import write_annotated


@pytest.mark.parametrize("num_pairs", [1, 2, 14, 19, 20, 45])
def test_few_pairs_make_fewer_groups(tmp_path: Path, num_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`clean` is known of every pair: 14 of them make 14 groups of one pair. The figures of one and two are drawn."""
    if num_pairs > 2:
        draw_nothing(monkeypatch)
    write_annotated(tmp_path / "strength.parquet", num_pairs)
    table = read_strength(tmp_path / "strength.parquet")
    numbers, written = strength_report(table, tmp_path / "out")
    mean, clean = (np.array(table[name].to_pylist(), float) for name in ("strength_mean", "clean"))
    groups = (tmp_path / "out" / "groups.csv").read_text().splitlines()[1:]
    assert len(groups) == min(20, num_pairs)
    assert numbers["num_pairs"] == num_pairs
    assert numbers["share_negative"] == same((mean < 0).mean())
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()}
    if 1 < num_pairs < 21:  # a group is one pair
        assert numbers["agreement_weakest"] == clean[mean.argmin()]
        assert numbers["agreement_strongest"] == clean[mean.argmax()]
    share = {1: "100", 2: "50", 14: "7.14", 19: "5.26"}.get(num_pairs, "5")
    assert (tmp_path / "out" / "groups.md").read_text().startswith(f"# Strength by group of {share} %, from the")


def test_truth_of_few_pairs_makes_groups_of_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 pairs 3 have a second label: the weakest, which it contradicts, and two others."""
    draw_nothing(monkeypatch)
    write_annotated(tmp_path / "strength.parquet", 30)
    table = read_strength(tmp_path / "strength.parquet")
    order = np.argsort(table["strength_mean"].to_pylist())
    clean = {int(order[0]): False, int(order[10]): True, int(order[20]): True}
    column = pa.array([clean.get(place) for place in range(30)], pa.bool_())
    table = table.set_column(table.column_names.index("clean"), "clean", column)
    numbers, written = strength_report(table, tmp_path / "out")
    assert (numbers["agreement_weakest"], numbers["agreement_strongest"]) == (0, 1)
    assert numbers["share_wrong"] == same(1 / 3)
    assert numbers["mean/auroc"] == 1
    assert "agreement_by_strength.png" in {path.name for path in written}
    pq.write_table(table, tmp_path / "few.parquet")
    analyze(composed(f"strength={tmp_path}/few.parquet", f"out={tmp_path}/told", command="analyze"))
    told = json.loads((tmp_path / "told" / "strength.json").read_text(), parse_constant=pytest.fail)
    assert told["mean/auroc_low"] is None  # one wrong label tells nothing of the spread


def test_no_strength_is_an_error_that_writes_nothing(tmp_path: Path) -> None:
    write_annotated(tmp_path / "strength.parquet", 3)
    table = read_strength(tmp_path / "strength.parquet")
    unknown = pa.array([None] * 3, pa.float64())
    table = table.set_column(table.column_names.index("strength_mean"), "strength_mean", unknown)
    with pytest.raises(ValueError, match="none of 3 pairs has strength"):
        strength_report(table, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_of_plain_texts_that_knows_no_truth_is_read_and_pairs_without_strength_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of strengths -1, 2, none, 3 one third is negative."""
    draw_nothing(monkeypatch)
    texts = {name: [f"{name} {place}" for place in range(4)] for name in ("prompt", "chosen", "rejected")}
    strength = {"strength_mean": [-1.0, 2, None, 3], "strength_std": [0.0] * 4, "votes": [[-1.0], [2.0], [], [3.0]]}
    pq.write_table(pa.table(texts | strength), tmp_path / "strength.parquet")
    numbers, _ = strength_report(read_strength(tmp_path / "strength.parquet"), tmp_path / "out")
    assert (numbers["num_pairs"], numbers["num_without_strength"]) == (4, 1)
    assert numbers["share_negative"] == same(1 / 3)
    assert "prompt 0,chosen 0,rejected 0" in (tmp_path / "out" / "examples.csv").read_text()


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("clean", ["yes", "no"], "column clean is of string, not of numbers"),
        ("strength_mean", [1.0, np.inf], "row 1: strength_mean is infinite"),
        ("votes", ["1,2", "2"], "column votes is of string, not of lists of numbers"),
    ],
)
def test_a_column_that_is_not_of_numbers_is_named_with_its_file(
    tmp_path: Path, name: str, column: list[object], message: str
) -> None:
    columns = {"strength_mean": [1.0, 2.0], "strength_std": [0.0, 0.0], "votes": [[1.0], [2.0]], name: column}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    with pytest.raises(ValueError, match=rf"strength='.*mine.parquet'.*{message}"):
        read_strength(tmp_path / "mine.parquet")


def test_strength_without_its_spread_is_named_by_row(tmp_path: Path) -> None:
    """Histograms of it failed in numpy's words, or said that no pair has strength."""
    columns = {"strength_mean": [1.0, None, 2.0], "strength_std": [0.5, None, None], "votes": [[1.0], [], [2.0]]}
    pq.write_table(pa.table(columns), tmp_path / "half.parquet")
    with pytest.raises(ValueError, match=r"half\.parquet' row 2 has strength_mean and no strength_std"):
        read_strength(tmp_path / "half.parquet")


def test_a_file_that_is_not_there_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.parquet': there is no such file"):
        read_strength(tmp_path / "gone.parquet")
