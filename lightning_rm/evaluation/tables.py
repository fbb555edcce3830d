"""Tables of an evaluation: models by sections, in percent, the interval of each figure below it. It knows results."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from lightning_rm.evaluation.measure import Figure, Row
from lightning_rm.evaluation.result import BenchmarkResult, Evaluation, percent, shown_notes, span

MAX_COMPARISONS = 12
"""Pairs of models that a table shows, those with the best model; the files have all."""


class Tables(JupyterMixin):
    """All tables of an evaluation, as rich draws them."""

    def __init__(self, evaluation: Evaluation, width: int | None = None) -> None:
        self.evaluation = evaluation
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width or options.max_width, options.max_width)
        for result in self.evaluation.benchmarks.values():
            yield from benchmark_tables(self.evaluation, result, width)
        if not self.evaluation.benchmarks:
            for name, message in self.evaluation.failed.items():
                yield Text(f"FAILED: {name}: {message}")


def benchmark_tables(evaluation: Evaluation, result: BenchmarkResult, width: int) -> Iterator[Group | Table | Text]:
    """The main table in as many blocks of sections as the width asks for, and the smaller ones under it."""
    columns = _columns(result)
    name_width = min(max(len(name) for name in result.rows()), max(20, width // 3))
    title: str | None = f"{result.title}: {result.num_items:,} items; % and its 95 % interval"
    for block in _blocks(columns, width - name_width - 4):
        table, title = _table(title), None
        table.add_column("", min_width=name_width, max_width=name_width, overflow="fold")
        for name, _ in block:
            table.add_column(name, justify="right", max_width=_width(name))
        for model, row in result.rows().items():
            cells = [_cell(_figure(row, *column)) for column in block]
            table.add_row(model, *cells, end_section=model == list(result.models)[-1])
        yield table
    if any(value for one in result.models.values() for value in one.row.tie.values()):
        yield _ties(result)
    if result.comparisons:
        yield _comparisons(result)
    for note in shown_notes(evaluation, result):
        yield Text(f"  {note}")


def _blocks(columns: Sequence[tuple[str, str]], width: int) -> Iterator[Sequence[tuple[str, str]]]:
    """The columns in as few blocks as fit into a width, in order."""
    block: list[tuple[str, str]] = []
    for column in columns:
        if block and sum(_width(name) + 2 for name, _ in [*block, column]) > width:
            yield block
            block = []
        block.append(column)
    yield block


def _width(name: str) -> int:
    """Of a column: wide enough for an interval, a heading of several words broken into lines."""
    return max(9, *map(len, name.split()))


def _columns(result: BenchmarkResult) -> list[tuple[str, str]]:
    """(name, kind) of the columns: `overall` first, the sections, and the summary over categories."""
    sections = sorted(result.sections, key=lambda name: name != "overall")
    summary = dict.fromkeys(name for row in result.rows().values() for name in row.summary)
    if "overall" in sections:
        summary.pop("mean", None)  # told already, or taken with other weights
    return [*((name, "sections") for name in sections), *((name, "summary") for name in summary)]


def _figure(row: Row, name: str, kind: str) -> Figure | None:
    figures: dict[str, Figure] = getattr(row, kind)
    return figures.get(name)


def _cell(figure: Figure | None) -> str:
    return "" if figure is None else f"{percent(figure.value)}\n{span(figure)}"


def _table(title: str | None) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _ties(result: BenchmarkResult) -> Table:
    table = _table("ties: strict (a tie is wrong), half (a tie is a coin toss), and their share; %")
    section = "overall" if "overall" in result.sections else None
    sections = [section] if section is not None else result.sections
    for heading, justify in (
        ("", "left"),
        ("section", "left"),
        ("strict", "right"),
        ("half", "right"),
        ("ties", "right"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")  # pyright: ignore[reportArgumentType]
    for model, one in result.models.items():
        for name in sections:
            if name in one.row.tie:
                values = (one.row.strict[name], one.row.half[name], one.row.tie[name])
                table.add_row(model, name, *map(percent, values))
    return table


def _comparisons(result: BenchmarkResult) -> Table:
    section = "overall" if "overall" in result.sections else result.sections[0]
    best = max(result.models, key=lambda name: result.models[name].row.sections[section].value)
    shown = [pair for pair in result.comparisons if best in (pair.first, pair.second)][:MAX_COMPARISONS]
    table = _table(f"{section} of {best} less that of others, on the same items; points")
    for heading in ("less", "difference", "95 % interval", "only it is right", "only the other", "McNemar p"):
        table.add_column(heading, justify="left" if heading == "less" else "right", overflow="fold")
    for pair in shown:
        figure, sign = pair.difference[section], 1 if pair.first == best else -1
        low, high = sorted((sign * figure.low, sign * figure.high))
        counts = (pair.test.only_first, pair.test.only_second)[::sign]
        table.add_row(
            pair.second if sign == 1 else pair.first,
            f"{100 * sign * figure.value:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            *(f"{count:,}" for count in counts),
            f"{pair.p_adjusted:.3g}",
        )
    return table


def markdown(evaluation: Evaluation) -> str:
    """All tables as Markdown, every column in one."""
    parts = ["# Evaluation\n"]
    for result in evaluation.benchmarks.values():
        columns = _columns(result)
        parts.append(f"## {result.title}\n\n{result.num_items:,} items; % and its 95 % interval.\n")
        lines = [["", *(name for name, _ in columns)], ["---", *["---:"] * len(columns)]]
        for model, row in result.rows().items():
            figures = [_figure(row, *column) for column in columns]
            lines.append([model, *("" if one is None else f"{percent(one.value)} ({span(one)})" for one in figures)])
        parts.append(_markdown_table(lines))
        if result.comparisons:
            section = "overall" if "overall" in result.sections else result.sections[0]
            lines = [
                ["first", "second", f"difference in {section}", "only first right", "only second right", "McNemar p"],
                ["---", "---", "---:", "---:", "---:", "---:"],
            ]
            for pair in result.comparisons:
                figure = pair.difference[section]
                cell = f"{100 * figure.value:+.1f} ({100 * figure.low:+.1f} to {100 * figure.high:+.1f})"
                test = pair.test
                lines.append(
                    [
                        pair.first,
                        pair.second,
                        cell,
                        f"{test.only_first:,}",
                        f"{test.only_second:,}",
                        f"{pair.p_adjusted:.3g}",
                    ]
                )
            parts.append(_markdown_table(lines))
        notes = list(shown_notes(evaluation, result))
        parts.append("".join(f"- {note}\n" for note in notes))
    return "\n".join(parts)


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    cells = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
