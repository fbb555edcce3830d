"""Tables for the terminal: what became of the rows, and the results of a run. They know only plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.store.report import DataReport, unread_note
from lightning_rm.evaluation.tables import in_lines, plain_line
from lightning_rm.modules.measured import EvaluationStage, metric_prefix

COLUMNS = {
    "accuracy": "accuracy",
    "length_accuracy": "length only",
    "clean_accuracy": "clean label",
    "nll": "NLL",
    "calibration_error": "calibration error",
    "margin": "margin",
    "num_pairs": "pairs",
    "score_rank_correlation": "rank correlation",
    "num_scores": "scores",
}
"""Metric of pairs -> its heading in the results table."""

GROUP_COLUMNS = {
    "difference": "difference",
    "spread": "spread",
    "gold_accuracy": "gold accuracy",
    "gold_correlation": "gold correlation",
    "gold": "gold, mean",
    "best_of_k": "gold, best of k",
    "best_possible": "gold, best possible",
    "num_groups": "groups",
}
"""Metric of groups of responses -> its heading in their table."""

TEXT_COLUMNS = {"loss": "loss", "perplexity": "perplexity", "num_tokens": "tokens"}
"""Metric of the text of chosen responses -> its heading in their table."""

RUN_TITLE = "results of the best weights (train: of the last epoch, while they moved)"


def results_table(results: Mapping[str, Mapping[str, float]], title: str = RUN_TITLE) -> Group:
    """Return one row a data set: accuracy beside the length-only baseline, NLL, folded calibration error, mean margin.

    Where text was trained there are loss and perplexity in their place. Sets of groups of responses have no accuracy;
    they stand in a second table of their own, with how their rewards differ and, where it is known, how they agree with
    the gold ones.

    Args:
        results: data set -> metric -> value; a metric that a set does not have stays empty.
        title: stands above the first table.
    """
    groups = {name: metrics for name, metrics in results.items() if "num_groups" in metrics}
    texts = {name: metrics for name, metrics in results.items() if "perplexity" in metrics}
    pairs = {name: metrics for name, metrics in results.items() if name not in groups.keys() | texts.keys()}
    tables = [(title, pairs, COLUMNS), (title, texts, TEXT_COLUMNS), ("groups of responses", groups, GROUP_COLUMNS)]
    shown = ((plain_line(heading), _table(sets, columns)) for heading, sets, columns in tables if sets)
    return Group(*(part for parts in shown for part in parts))


def report_table(reports: Mapping[str, DataReport]) -> Group:
    """Return one row a data set: rows read and kept, those left out by each reason, those kept with each change.

    Args:
        reports: data set -> what became of its rows; notes on a whole set, and fields that
            nothing reads, stand under the table.
    """
    notes = [*sorted({note for report in reports.values() for note in report.notes}), *unread_note(reports.values())]
    reasons = sorted({reason for report in reports.values() for reason in report.reasons})
    changes = sorted({change for report in reports.values() for change in report.changes})
    counts: dict[str, list[int]] = {
        "read": [report.read for report in reports.values()],
        "kept": [report.kept for report in reports.values()],
    }
    for reason in reasons:
        counts[f"left out: {reason.removeprefix('left out ')}"] = [r.reasons.get(reason, 0) for r in reports.values()]
    for change in changes:
        counts[f"kept: {change}"] = [report.changes.get(change, 0) for report in reports.values()]
    table = Blocks(list(reports), {heading: [f"{count:,}" for count in found] for heading, found in counts.items()})
    return Group(plain_line("rows"), table, *(plain_line(note, "") for note in notes))


def set_reports(data: PreferenceDataModule) -> dict[str, DataReport]:
    """Return what became of the rows of every set that is set up, under the names that the sets are measured by.

    A data module calls its sets `val` and `ood`; results call the latter `test/ood`.
    """
    stages: tuple[tuple[EvaluationStage, tuple[str, ...]], ...] = (
        ("val", (*data.val_names, *data.val_response_names)),
        ("test", (*data.test_names, *data.test_response_names)),
    )
    measured = {name: metric_prefix(stage, name) for stage, names in stages for name in names}
    return {measured.get(name, name): report for name, report in data.reports.items()}


@dataclass(frozen=True)
class Blocks:
    """A table with a row a name, its columns in as many blocks as the width of the console asks for: no figure is cut.

    Eight columns have room in 80 characters. A long name goes on in the next line, where one of its parts ends.

    Args:
        names: of the rows, such as data sets.
        columns: heading -> a figure for each of them, in one line or several.
        what: has the names, the heading above them.
    """

    names: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    what: str = "data set"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = {
            heading: max(map(cell_len, (*heading.split(), *"\n".join(figures).split("\n"))))
            for heading, figures in self.columns.items()
        }
        left = options.max_width - sum(1 + width for width in widths.values())
        name_width = min(max(24, left), max(map(cell_len, (self.what, *self.names))))
        name_width = max(8, min(name_width, options.max_width - 1 - max(widths.values(), default=0)))
        block: list[str] = []
        room = options.max_width - name_width
        for heading, width in widths.items():
            if block and 1 + width > room:
                yield self._table(block, name_width, widths, options.max_width)
                block, room = [], options.max_width - name_width
            block.append(heading)
            room -= 1 + width
        yield self._table(block, name_width, widths, options.max_width)

    def _table(self, headings: Sequence[str], name_width: int, widths: Mapping[str, int], room: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
        table.add_column(self.what, overflow="fold", min_width=name_width, max_width=name_width)
        lines = {name: max(widths[name], *map(cell_len, name.split("\n"))) for name in headings}
        fits = name_width + sum(1 + width for width in lines.values()) <= room
        for heading in headings:  # rich would narrow the widest first, and cut others
            table.add_column(
                heading, justify="right", overflow="fold", width=lines[heading] if fits else widths[heading]
            )
        for place, name in enumerate(self.names):
            table.add_row(in_lines(name, name_width), *(self.columns[heading][place] for heading in headings))
        return table


def _table(results: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]) -> Blocks:
    told = {data_set: dict(_told(metrics)) for data_set, metrics in results.items()}
    shown = [name for name in columns if any(name in metrics for metrics in told.values())]
    return Blocks(
        list(told),
        {
            columns[name].replace(" ", "\n"): [_cell(name, metrics.get(name)) for metrics in told.values()]
            for name in shown
        },
    )


def _told(metrics: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the metrics that say something: where no pair has two responses, those of pairs do not."""
    single = math.isnan(metrics.get("accuracy", 0.0))
    for name, value in metrics.items():
        if not math.isnan(value) and (not single or name.startswith(("num_", "score_"))):
            yield name, value


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if name.startswith("num_") else f"{value:.3f}"


def words_table(rows: Sequence[Mapping[str, str]]) -> Blocks:
    """Return rows of words as a table for a terminal, the first column at the left, intervals under their figures."""
    what, *headings = rows[0]
    columns = {name: [row[name].replace(" [", "\n[") for row in rows] for name in headings}
    return Blocks([row[what] for row in rows], columns, what)
