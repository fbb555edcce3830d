"""Tables for the terminal: what became of the rows, and what came out of a run. They know plain numbers alone."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from lightning_rm.data.report import DataReport

COLUMNS = {
    "accuracy": "accuracy",
    "length_accuracy": "length only",
    "clean_accuracy": "clean label",
    "nll": "NLL",
    "calibration_error": "calibration error",
    "margin": "margin",
    "num_pairs": "pairs",
}
"""Metric -> its heading in the results table."""


RUN_TITLE = "results of the best weights (train: of the last epoch, while they moved)"


def results_table(results: Mapping[str, Mapping[str, float]], title: str = RUN_TITLE) -> Table:
    """One row a data set: accuracy beside the length-only baseline, NLL, folded calibration error, mean margin.

    Args:
        results: data set -> metric -> value; a metric that a set does not have stays empty.
        title: stands above the table.
    """
    table = Table(title=title, title_justify="left")
    shown = [name for name in COLUMNS if any(name in metrics for metrics in results.values())]
    table.add_column("data set")
    for name in shown:
        table.add_column(COLUMNS[name], justify="right")
    for data_set, metrics in results.items():
        table.add_row(data_set, *(_cell(name, metrics.get(name)) for name in shown))
    return table


def report_table(reports: Mapping[str, DataReport]) -> Table:
    """One row a data set: rows read and kept, those left out by each reason, those kept with each change.

    Args:
        reports: data set -> what became of its rows; notes on a whole set stand under the table.
    """
    notes = sorted({note for report in reports.values() for note in report.notes})
    table = Table(title="rows", title_justify="left", caption="\n".join(notes), caption_justify="left")
    reasons = sorted({reason for report in reports.values() for reason in report.reasons})
    changes = sorted({change for report in reports.values() for change in report.changes})
    table.add_column("data set")
    for heading in (
        "read",
        "kept",
        *(f"left out: {reason.removeprefix('left out ')}" for reason in reasons),
        *(f"kept: {c}" for c in changes),
    ):
        table.add_column(heading, justify="right")
    for name, report in reports.items():
        left_out = [report.reasons.get(reason, 0) for reason in reasons]
        changed = [report.changes.get(change, 0) for change in changes]
        table.add_row(name, *(f"{count:,}" for count in (report.read, report.kept, *left_out, *changed)))
    return table


def _cell(name: str, value: float | None) -> str:
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if name == "num_pairs" else f"{value:.3f}"
