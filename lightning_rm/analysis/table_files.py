"""Tables as files: the same rows as CSV, for programs, and as Markdown, for people."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lightning_rm.drafts import draft_of, write_text
from lightning_rm.markup import escaped_markdown, markdown_table

Rows = Sequence[Mapping[str, object]]


def write_table(rows: Rows, path: str | Path, title: str) -> list[Path]:
    """Write rows as CSV and as Markdown, floats to three or four decimals, NaN and None as empty cells.

    No text of a cell is markup.

    Args:
        rows: the columns are those of all rows, in the order in which they first come up.
        path: where to, without a suffix; the folder is made.
        title: heading of the Markdown file.

    Returns:
        The two files.

    Raises:
        ValueError: if there are no rows.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        raise ValueError(f"{path}: there are no rows to write")
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    path = Path(path)
    data, text = path.with_name(f"{path.name}.csv"), path.with_name(f"{path.name}.md")
    with draft_of(data) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *cells])
    numbers = [place for place, column in enumerate(columns) if all(_is_number(row.get(column)) for row in rows)]
    body = markdown_table([list(map(escaped_markdown, line)) for line in (columns, *cells)], numbers)
    write_text(text, f"# {escaped_markdown(title)}\n\n{body}\n")
    return [data, text]


def _is_number(value: object) -> bool:
    """Tell whether a cell belongs to a column of numbers; an empty one does."""
    return value is None or (isinstance(value, int | float | np.number) and not isinstance(value, bool))


def _cell(value: object) -> str:
    """Return a value as text.

    Four decimals below 1, three from there on, and three digits where four decimals say 0.
    """
    if value is None or value != value:
        return ""
    if not isinstance(value, float | np.floating):
        return str(value)
    size = abs(value)
    return f"{value:.3f}" if size >= 1 else f"{value:.3g}" if 0 < size < 1e-3 else f"{value:.4f}"
