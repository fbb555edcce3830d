from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, Group

from lightning_rm.analysis.run import write_figures
from lightning_rm.callbacks import PairRecords
from lightning_rm.commands._tables import (
    COLUMNS,
    RUN_TITLE,
    Blocks,
    report_table,
    results_table,
    set_reports,
    words_table,
)
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.toy import toy_data


def cells(table: Group) -> list[list[str]]:
    """Headings and rows of one or several tables."""
    tables = [one for one in table.renderables if isinstance(one, Blocks)]
    return [
        row
        for one in tables
        for row in (
            ["data set", *one.columns],
            *(list(row) for row in zip(one.names, *one.columns.values(), strict=True)),
        )
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_cuts_no_figure(width: int) -> None:
    metrics = {name: 100000.0 + place for place, name in enumerate(COLUMNS)}
    console = Console(width=width)
    with console.capture() as capture:
        console.print(results_table({"test/a_set_with_a_long_name": metrics, "val": metrics}))
        console.print(report_table({"val": DataReport("val", 10**7, 10**6, {f"r {n}": 10**6 for n in range(9)})}))
    said = capture.get()
    assert "…" not in said
    for value in metrics.values():
        assert said.count(f"{value:.3f}") + said.count(f"{value:,.0f}") == 2
    assert said.count("1,000,000") == 10


def test_of_text_there_are_loss_and_perplexity() -> None:
    results = {
        "train": {"loss": 1.0, "perplexity": 2.71828},
        "val": {"loss": 2.0, "perplexity": 7.389, "num_tokens": 1e3},
    }
    assert cells(results_table(results)) == [
        ["data set", "loss", "perplexity", "tokens"],
        ["train", "1.000", "2.718", ""],
        ["val", "2.000", "7.389", "1,000"],
    ]


@pytest.mark.parametrize("width", [30, 40, 80])
def test_a_narrow_terminal_cuts_no_interval(width: int) -> None:
    """`-0.607 [-0.935, -0.240]`, of 23 characters, leaves no room for a name at 40: the interval stands below."""
    rows = [
        {"model": f"runs/{name}/0", "highest": "1.287", "fall": "0.512 [0.103, 0.853]", "against": against}
        for name, against in (("baseline_of_a_long_name", ""), ("simcse", "-0.607 [-0.935, -0.240]"))
    ]
    console = Console(width=width)
    with console.capture() as capture:
        console.print(words_table(rows))
    said = capture.get()
    assert (said.count("1.287"), said.count("0.512"), said.count("[0.103, 0.853]")) == (2, 2, 2)
    assert (said.count("-0.607"), said.count("[-0.935, -0.240]")) == (1, 1)


def test_at_80_columns_no_name_is_cut_and_no_line_wraps() -> None:
    names = ("test/mean", "test/median", "test/worst", "test/mean minus variance", "test/a_set_with_a_long_name/WARM")
    metrics = {"accuracy": 0.5, "length_accuracy": 0.5, "clean_accuracy": 0.5, "nll": 0.7, "calibration_error": 0.1}
    table = results_table({name: {**metrics, "margin": -0.5, "num_pairs": 12345.0} for name in names})
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    assert "…" not in capture.get()
    for name in names[:4]:
        assert sum(line.startswith(name.ljust(25)) for line in lines) == 1
    assert sum("12,345" in line for line in lines) == len(names)


@pytest.mark.parametrize("width", [60, 80])
def test_titles_and_notes_are_whole_at_any_width(width: int) -> None:
    note = "a note of many words " * 6 + "that has an end"
    console = Console(width=width)
    with console.capture() as capture:
        console.print(report_table({"val": DataReport("val", read=4, kept=4, notes=[note])}))
        console.print(results_table({"val": {"accuracy": 0.5}}))
    said = " ".join(capture.get().split())
    assert note in said
    assert RUN_TITLE in said


def test_a_set_is_called_alike_wherever_it_is_shown() -> None:
    data = toy_data()
    data.setup()
    assert list(set_reports(data)) == ["train", "val", "test"]
    data = PreferenceDataModule(world_tokenizer(), test={"ood": SyntheticSource(3, split="ood")})
    data.setup()
    assert list(set_reports(data)) == ["test/ood"]


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


def test_single_responses_have_the_correlation_with_their_scores() -> None:
    nothing = {"accuracy": float("nan"), "nll": 0.693, "margin": 0.0, "num_pairs": 8.0}
    shown = cells(
        results_table({"train": nothing, "val": {**nothing, "score_rank_correlation": 0.5, "num_scores": 8.0}})
    )
    assert shown == [
        ["data set", "pairs", "rank\ncorrelation", "scores"],
        ["train", "8", "", ""],
        ["val", "8", "0.500", "8"],
    ]
    assert cells(results_table({"train": nothing})) == [["data set", "pairs"], ["train", "8"]]


def test_groups_of_responses_have_a_table_of_their_own() -> None:
    groups = {"difference": 1.25, "gold_correlation": 0.5, "num_groups": 2000.0}
    shown = cells(results_table({"test": {"accuracy": 0.75}, "test/shift_50": groups, "val": {"accuracy": 0.5}}))
    assert shown == [
        ["data set", "accuracy"],
        ["test", "0.750"],
        ["val", "0.500"],
        ["data set", "difference", "gold\ncorrelation", "groups"],
        ["test/shift_50", "1.250", "0.500", "2,000"],
    ]
    assert cells(results_table({"test/shift_50": groups})) == shown[3:]


@pytest.fixture(autouse=True, scope="module")
def _without_ink() -> None:
    """Figures are drawn here: what the other tests of commands do without."""


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
    assert write_figures(tmp_path, missing=True) == []
    gone = sorted(path for path in written if path.stem in ("parts", "rewards_val_val"))
    gone[0].unlink()
    gone[2].unlink()
    assert sorted(write_figures(tmp_path, missing=True)) == gone
