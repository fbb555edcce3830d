"""Tables of an evaluation: models by sections, in percent, the interval of each figure below it. It knows results."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table
from rich.text import Text

from lightning_rm.evaluation.measure import NO_FIGURE, Figure, Row, is_known
from lightning_rm.evaluation.result import BenchmarkResult, percent, points, shown_failures, shown_notes, span

FIGURES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("pairs", ("pairs",), "{:,}"),
    ("accuracy, ties half", ("accuracy",), "{:.1%}"),
    ("NLL", ("calibration", "nll"), "{:.3f}"),
    ("Brier score", ("calibration", "brier"), "{:.3f}"),
    ("calibration error, folded", ("calibration", "ece"), "{:.3f}"),
    ("temperature", ("temperature",), "{:.3f}"),
    ("NLL with temperature", ("calibration with temperature", "nll"), "{:.3f}"),
    ("calibration error with temperature", ("calibration with temperature", "ece"), "{:.3f}"),
    ("right when the better one is longer", ("length", "right when longer"), "{:.1%}"),
    ("right when the better one is shorter", ("length", "right when shorter"), "{:.1%}"),
    ("length-controlled accuracy", ("length", "length-controlled"), "{:.1%}"),
    ("accuracy without a linear length term", ("length", "without length"), "{:.1%}"),
    ("choice by length (logistic coefficient)", ("length", "choice by length"), "{:.2f}"),
    ("spread of rewards within a prompt (sd)", ("spread", "within"), "{:.3f}"),
    ("spread between prompts (sd)", ("spread", "between"), "{:.3f}"),
    ("reward and length within a prompt (Spearman)", ("spread", "length"), "{:.2f}"),
    ("accuracy of the surest half by |margin|", ("selective by |margin|", "accuracy", "50%"), "{:.1%}"),
    ("|margin| finds wrong pairs (AUROC)", ("selective by |margin|", "AUROC"), "{:.3f}"),
    ("accuracy of the surest half by members", ("selective by members' spread", "accuracy", "50%"), "{:.1%}"),
    ("members' spread finds wrong pairs (AUROC)", ("selective by members' spread", "AUROC"), "{:.3f}"),
    ("margin and strength (Spearman)", ("margin and strength",), "{:.2f}"),
    ("moved by padding and batch (in sd)", ("invariance", "padded"), "{:.1e}"),
    ("moved by packing (in sd)", ("invariance", "packed"), "{:.1e}"),
    ("moved by shared prompts (in sd)", ("invariance", "shared_prefix"), "{:.1e}"),
    ("moved by bfloat16 (in sd)", ("invariance", "bfloat16"), "{:.1e}"),
)
"""Heading of a diagnostic, where it stands in the diagnostics, and its form."""

PARTS = re.compile(r"[^\s/]+[\s/]*|[\s/]+")
SMALLER_PARTS = re.compile(r"[^\s/_.=,-]+[\s/_.=,-]*|[\s/_.=,-]+")
"""What stays together of a name where a line ends, with the signs after it."""

MAX_COMPARISONS = 12
"""Pairs of models that a table shows, those with the best model; the files have all."""


class Tables(JupyterMixin):
    """All tables of an evaluation, as rich draws them, in a terminal or a notebook."""

    def __init__(
        self, benchmarks: Mapping[str, BenchmarkResult], failed: Mapping[str, str], width: int | None = None
    ) -> None:
        self.benchmarks = benchmarks
        self.failed = failed
        self.width = width

    def __str__(self) -> str:
        """Return them as plain text: for a script that prints."""
        console = Console(width=self.width or 120, force_jupyter=False, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width or options.max_width, options.max_width)
        for result in self.benchmarks.values():
            yield from benchmark_tables(result, shown_failures(result, self.benchmarks, self.failed), width)
        if not self.benchmarks:
            for name, message in self.failed.items():
                yield Text(f"FAILED: {name}: {message}")


def in_lines(name: str, width: int) -> str:
    """Return a name in lines of a width that end where its parts do: a terminal would break it wherever one is full.

        runs/baseline/2026-11-30_12-00-00/0, 20  ->  runs/baseline/
                                                     2026-11-30_12-00-00/
                                                     0

    At a space or a slash if that does, else at another sign; a word that is wider is left to be broken.
    """
    lines = [""]
    for part in PARTS.findall(name):
        for piece in [part] if cell_len(part.rstrip()) <= width else SMALLER_PARTS.findall(part):
            if lines[-1] and cell_len(lines[-1]) + cell_len(piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def plain_line(words: str, style: str = "bold") -> Text:
    """Return a heading, or a note, that wraps at the end of the console, however narrow the table beside it."""
    return Text(words, style)


def benchmark_tables(result: BenchmarkResult, failures: Iterable[str], width: int) -> Iterator[Group | Table | Text]:
    """Yield the main table in as many blocks of sections as the width asks for, and the smaller ones under it."""
    columns = {column: _width(result, *column) for column in columns_of(result)}
    name_width = min(max(len(name) for name in result.rows()), max(20, width // 3))
    yield plain_line(f"{result.title}: {result.num_items:,} items; % and its 95 % interval")
    for block in _blocks(columns, width - name_width - 4):
        table = _table()
        table.add_column("", min_width=name_width, max_width=name_width, overflow="fold")
        for name, kind in block:
            table.add_column(name, justify="right", max_width=columns[name, kind])
        for model, row in result.rows().items():
            cells = [_cell(figure_at(row, *column)) for column in block]
            table.add_row(in_lines(model, name_width), *cells, end_section=model == list(result.models)[-1])
        yield table
    if any(value for one in result.models.values() for value in one.row.tie.values()):
        yield _ties(result, name_width)
    if result.comparisons:
        yield _comparisons(result, name_width)
    for note in (*shown_notes(result), *failures):
        yield Text(f"  {note}")
    if any(one.diagnostics for one in result.models.values()):
        lines = diagnostic_lines(result)
        yield plain_line(f"{result.title}: diagnostics")
        table = _table()
        room = max(8, (width - name_width) // max(1, len(lines[0]) - 1) - 2)
        for number, heading in enumerate(lines[0]):
            table.add_column(in_lines(heading, room), justify="right" if number else "left", overflow="fold")
        for line in lines[1:]:
            table.add_row(*line, end_section=not any(line))
        yield table


def _blocks(columns: Mapping[tuple[str, str], int], width: int) -> Iterator[Sequence[tuple[str, str]]]:
    """Yield the columns in as few blocks as fit into a width, in order."""
    block: list[tuple[str, str]] = []
    for column in columns:
        if block and sum(columns[each] + 2 for each in [*block, column]) > width:
            yield block
            block = []
        block.append(column)
    yield block


def _width(result: BenchmarkResult, name: str, kind: str) -> int:
    """Return the width of a column that holds its intervals, and its heading with words on lines of their own."""
    cells = [_cell(figure_at(row, name, kind)) for row in result.rows().values()]
    return max(len(word) for words in (name, *cells) for word in words.split())


def columns_of(result: BenchmarkResult) -> list[tuple[str, str]]:
    """Return (name, kind) of the columns: `overall` first, the sections, and the summary over categories."""
    sections = sorted(result.sections, key=lambda name: name != "overall")
    summary = dict.fromkeys(name for row in result.rows().values() for name in row.summary)
    if "overall" in sections:
        summary.pop("mean", None)  # shown already, or `overall` weights it otherwise
    return [*((name, "sections") for name in sections), *((name, "summary") for name in summary)]


def figure_at(row: Row, name: str, kind: str) -> Figure:
    """Return what stands in a column of `columns_of`."""
    figures: dict[str, Figure] = getattr(row, kind)
    return figures.get(name, NO_FIGURE)


def _cell(figure: Figure) -> str:
    return f"{percent(figure.value)}\n{span(figure)}" if is_known(figure) else ""


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _ties(result: BenchmarkResult, name_width: int) -> Group:
    table = _table()
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
            if one.row.tie.get(name):
                values = (one.row.strict[name], one.row.half[name], one.row.tie[name])
                table.add_row(in_lines(model, name_width), in_lines(name, name_width), *map(percent, values))
    return Group(plain_line("ties: strict (a tie is wrong), half (a tie is a coin toss), and their share; %"), table)


def _comparisons(result: BenchmarkResult, name_width: int) -> Group:
    section = result.compared
    values = {name: one.row.figure(section) for name, one in result.models.items()}
    best = max(values, key=lambda name: values[name].value if is_known(values[name]) else -math.inf)
    shown = [pair for pair in result.comparisons if best in (pair.first, pair.second)][:MAX_COMPARISONS]
    table = _table()
    for heading in ("less", "difference", "95 % interval", "only it is right", "only the other", "McNemar p"):
        table.add_column(heading, justify="left" if heading == "less" else "right", overflow="fold")
    for pair in shown:
        figure, sign = pair.difference.get(section, NO_FIGURE), 1 if pair.first == best else -1
        counts = (pair.test.only_first, pair.test.only_second)[::sign]
        table.add_row(
            in_lines(pair.second if sign == 1 else pair.first, name_width),
            f"{100 * sign * figure.value:+.1f}" if is_known(figure) else "",
            points(figure, sign),
            *(f"{count:,}" for count in counts),
            f"{pair.p_adjusted:.3g}",
        )
    return Group(plain_line(f"{section} of {best} less that of others; points. Right and p: of all comparisons"), table)


def diagnostic_lines(result: BenchmarkResult) -> list[list[str]]:
    """Return a line per figure of the diagnostics, with a column per model; bins and curves are in the files alone."""
    models = {name: one.diagnostics for name, one in result.models.items() if one.diagnostics}
    lines = [["", *models]]
    for heading, path, form in FIGURES:
        cells = [_at(found, path, form) for found in models.values()]
        if any(cells):
            lines.append([heading, *cells])
    for name in dict.fromkeys(name for found in models.values() for name in found.get("probes", {})):
        figures = {"flips": "{:.1%} of ", "right": "{:,}, ", "shift": "{:.2f}"}
        cells = [
            "".join(_at(found, ("probes", name, key), form) for key, form in figures.items())
            for found in models.values()
        ]
        if any(cells):
            lines.append([f"edit: {name} (flips of right pairs, shift in sd)", *cells])
    return lines


def _at(found: Mapping[str, Any], path: Sequence[str], form: str) -> str:
    """Return the figure that stands at a path, in a form; empty where there is none."""
    value: Any = found
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return form.format(value) if isinstance(value, int | float) and value == value else ""
