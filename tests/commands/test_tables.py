from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console, Group
from rich.table import Table

from lightning_rm.analysis.run import write_figures
from lightning_rm.callbacks import PairRecords
from lightning_rm.commands._tables import report_table, results_table
from lightning_rm.data.store.report import DataReport


def cells(table: Table | Group) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    return [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in lines
        if "│" in line or "┃" in line
    ]


def test_every_count_and_change_is_shown() -> None:
    train = DataReport("train", read=10, kept=7, reasons={"overlong": 2, "empty text": 1}, changes={"prompt cut": 3})
    val = DataReport("val", read=4, kept=4, notes=["the default template is used"])
    shown = cells(report_table({"train": train, "val": val}))
    assert shown == [
        ["data set", "read", "kept", "left out: empty text", "left out: overlong", "kept: prompt cut"],
        ["train", "10", "7", "1", "2", "3"],
        ["val", "4", "4", "0", "0", "0"],
    ]


def test_a_metric_that_a_set_lacks_stays_empty() -> None:
    shown = cells(results_table({"train": {"accuracy": 0.75, "num_pairs": 1200.0}, "val": {"accuracy": float("nan")}}))
    assert shown == [["data set", "accuracy", "pairs"], ["train", "0.750", "1,200"], ["val", "", ""]]


def test_groups_of_responses_have_a_table_of_their_own() -> None:
    groups = {"difference": 1.25, "gold_correlation": 0.5, "num_groups": 2000.0}
    shown = cells(results_table({"test": {"accuracy": 0.75}, "test/shift_50": groups, "val": {"accuracy": 0.5}}))
    assert shown == [
        ["data set", "accuracy"],
        ["test", "0.750"],
        ["val", "0.500"],
        ["data set", "difference", "gold correlation", "groups"],
        ["test/shift_50", "1.250", "0.500", "2,000"],
    ]
    assert cells(results_table({"test/shift_50": groups})) == shown[3:]


def test_figures_are_drawn_from_what_a_run_wrote(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text(
        "epoch,step,train/accuracy,train/loss,train/alignment,val/accuracy,val/nll\n"
        "0,0,0.5,0.7,0.2,,\n0,1,0.6,0.6,0.1,,\n0,1,,,,0.55,0.68\n"
    )
    records = PairRecords(
        data_set="val",
        row=np.arange(4),
        subset=["all"] * 4,
        chosen=np.array([1.0, 0.5, 2.0, 0.1], dtype=np.float32),
        rejected=np.array([0.0, 0.7, 1.0, 0.0], dtype=np.float32),
        label=np.ones(4),
        clean=np.full(4, np.nan),
    )
    records.write(tmp_path / "pairs" / "val_val.parquet")
    written = write_figures(tmp_path)
    figures = ("curves", "parts", "rewards_val_val", "reliability_val_val")
    assert {path.name for path in written} == {f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")}
    assert all(path.stat().st_size > 1000 for path in written)
