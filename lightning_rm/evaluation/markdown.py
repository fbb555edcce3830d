"""The tables of an evaluation as Markdown, every column in one. It knows results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lightning_rm.evaluation.measure import NO_FIGURE, is_known
from lightning_rm.evaluation.result import BenchmarkResult, percent, points, shown_failures, shown_notes, span
from lightning_rm.evaluation.tables import columns_of, diagnostic_lines, figure_at
from lightning_rm.markup import escaped_markdown, markdown_table


def markdown(benchmarks: Mapping[str, BenchmarkResult], failed: Mapping[str, str]) -> str:
    """Return all tables as Markdown, every column in one."""
    parts = ["# Evaluation\n"]
    for result in benchmarks.values():
        columns = columns_of(result)
        parts.append(f"## {result.title}\n\n{result.num_items:,} items; % and its 95 % interval.\n")
        lines = [["", *(name for name, _ in columns)]]
        for model, row in result.rows().items():
            figures = [figure_at(row, *column) for column in columns]
            lines.append([model, *(f"{percent(one.value)} ({span(one)})" if is_known(one) else "" for one in figures)])
        parts.append(_table(lines))
        if result.comparisons:
            section, test_of = result.compared, ("only first right", "only second right", "McNemar p")
            lines = [["first", "second", f"difference in {section}", *test_of]]
            for pair in result.comparisons:
                figure, test = pair.difference.get(section, NO_FIGURE), pair.test
                cell = f"{100 * figure.value:+.1f} ({points(figure)})" if is_known(figure) else ""
                tested = (f"{test.only_first:,}", f"{test.only_second:,}", f"{pair.p_adjusted:.3g}")
                lines.append([pair.first, pair.second, cell, *tested])
            parts.append(_table(lines, num_left=2))
        notes = (*shown_notes(result), *shown_failures(result, benchmarks, failed))
        parts.append("".join(f"- {note}\n" for note in notes))
        if any(one.diagnostics for one in result.models.values()):
            parts.append(f"### Diagnostics\n\n{_table(diagnostic_lines(result))}")
            parts += _bins(result)
    return "\n".join(parts)


def _bins(result: BenchmarkResult) -> Iterator[str]:
    """Yield accuracy by margin, length difference and strength, and reliability, as Markdown tables, one per model
    and kind.
    """
    for name, one in result.models.items():
        for kind in ("by |margin|", "by length difference", "by strength"):
            if rows := one.diagnostics.get(kind):
                lines = [["from", "to", "accuracy", "pairs"]]
                for row in rows:
                    bounds = f"{row['from']:.3g}", f"{row['to']:.3g}"
                    lines.append([*bounds, percent(row["accuracy"]), f"{row['pairs']:,}"])
                yield f"{name}, accuracy {kind}:\n\n{_table(lines, num_left=0)}"
        if rows := one.diagnostics.get("calibration", {}).get("bins"):
            lines = [["confidence", "accuracy", "pairs"]]
            lines += [[percent(row["confidence"]), percent(row["accuracy"]), f"{row['pairs']:,}"] for row in rows]
            yield f"{name}, reliability:\n\n{_table(lines, num_left=0)}"


def _table(lines: Sequence[Sequence[str]], num_left: int = 1) -> str:
    """Return lines as a table, all columns but the first ones at the right."""
    escaped = [list(map(escaped_markdown, line)) for line in lines]
    return f"{markdown_table(escaped, range(num_left, len(lines[0])))}\n"
