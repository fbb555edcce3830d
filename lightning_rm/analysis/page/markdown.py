"""A page as Markdown, its figures as PNG files in a folder beside it. Text of data enters escaped or in a fence."""

from __future__ import annotations

from urllib.parse import quote

from matplotlib.figure import Figure

from lightning_rm.analysis.page.blocks import Block, Cell, Drawings, Example, Folded, Page, Table, Text
from lightning_rm.analysis.plots.style import with_legend
from lightning_rm.markup import escaped_markdown, fenced, markdown_line, markdown_table, visible


def render_markdown(page: Page, folder: str) -> tuple[str, dict[str, Figure]]:
    """Return the page as Markdown, in which every figure has the legend that on a page of HTML stands above several.

    Args:
        page: to render.
        folder: where its figures lie, as the text names it.

    Returns:
        The text, and the figures by the name of their file in the folder.
    """
    figures: dict[str, Figure] = {}
    parts = [f"# {escaped_markdown(page.title)}", markdown_line(page.subtitle)]
    for section in page.sections:
        if not section.blocks and not section.lead:
            continue
        parts.append(f"## {escaped_markdown(section.title)}")
        if section.lead:
            parts.append(f"**{escaped_markdown(section.lead)}**")
        parts += [_block(block, folder, figures) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n", figures


def _block(block: Block, folder: str, figures: dict[str, Figure]) -> str:
    if isinstance(block, Text):
        return markdown_line(block.text)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Drawings):
        return _drawings(block, folder, figures)
    if isinstance(block, Folded):
        title = f"**{escaped_markdown(block.title)}**"
        return "\n\n".join([title, *(_block(one, folder, figures) for one in block.blocks)])
    return _example(block)


def _table(table: Table) -> str:
    rows = [table.cells(row) for row in table.rows]
    numbers = [place for place in range(len(table.columns)) if any(row[place].is_number for row in rows)]
    lines = [[escaped_markdown(column) for column in table.columns], *([_cell(cell) for cell in row] for row in rows)]
    caption = f"{markdown_line(table.caption)}\n\n" if table.caption else ""
    return caption + markdown_table(lines, numbers)


def _cell(cell: Cell) -> str:
    return (
        f"{escaped_markdown(cell.text)} ({escaped_markdown(cell.note)})" if cell.note else escaped_markdown(cell.text)
    )


def _drawings(block: Drawings, folder: str, figures: dict[str, Figure]) -> str:
    parts: list[str] = []
    for drawing in block.drawings:
        file = f"{drawing.name}.png"
        figures[file] = with_legend(drawing.figure, block.legend) if block.legend else drawing.figure
        parts.append(f"![{escaped_markdown(drawing.caption)}]({quote(f'{folder}/{file}')})")
    return "\n\n".join(parts)


def _example(example: Example) -> str:
    parts = [f"### {escaped_markdown(example.title)}", "prompt", fenced(visible(example.prompt))]
    for name, text in example.responses.items():
        parts += [markdown_line(name), fenced(visible(text))]
    return "\n\n".join([*parts, "\n".join(f"- {markdown_line(fact)}" for fact in example.facts)])
