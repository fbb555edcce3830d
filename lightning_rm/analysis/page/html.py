"""A page as one HTML file: no script, no address outside it, style sheet and figures within.

A policy in its head forbids scripts, frames, forms and every request, whatever the data on the page says. Text of data
enters by `escaped` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from lightning_rm.analysis.page.blocks import Block, Cell, Drawings, Example, Folded, Page, Section, Table, Text
from lightning_rm.analysis.page.svg import color_variable, inline_svg
from lightning_rm.analysis.plots.style import Key
from lightning_rm.markup import escaped

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content security policy: styles that stand in the page, pictures that stand in the page, nothing else."""


def render_html(page: Page) -> str:
    """Return the page as HTML, the same text for the same page."""
    sections = [section for section in page.sections if section.blocks or section.lead]
    anchors = [_anchor(section.title) for section in sections]
    style = files("lightning_rm.analysis.page").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(
        f'<li><a href="#{anchor}">{escaped(section.title)}</a></li>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    counts = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in page.counts.items()
    )
    body = "\n".join(
        _section(section, anchor, place) for place, (anchor, section) in enumerate(zip(anchors, sections, strict=True))
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escaped(page.title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escaped(page.title)}</h1>
<p class="subtitle">{escaped(page.subtitle)}</p>
<dl class="counts">{counts}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _section(section: Section, anchor: str, place: int) -> str:
    lead = f'<p class="lead">{escaped(section.lead)}</p>\n' if section.lead else ""
    blocks = "\n".join(_block(block, f"s{place}b{number}") for number, block in enumerate(section.blocks))
    return f'<section id="{anchor}">\n<h2>{escaped(section.title)}</h2>\n{lead}{blocks}\n</section>'


def _block(block: Block, prefix: str) -> str:
    if isinstance(block, Text):
        return f"<p>{escaped(block.text)}</p>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Drawings):
        return _drawings(block, prefix)
    if isinstance(block, Folded):
        inner = "\n".join(_block(one, f"{prefix}n{place}") for place, one in enumerate(block.blocks))
        return f"<details><summary>{escaped(block.title)}</summary>\n{inner}</details>"
    return _example(block)


def _table(table: Table) -> str:
    numbers = [any(table.cells(row)[place].is_number for row in table.rows) for place in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{_class("number" if number else "")}>{escaped(column)}</th>'
        for column, number in zip(table.columns, numbers, strict=True)
    )
    body = "\n".join(f"<tr>{''.join(_row(table.cells(row)))}</tr>" for row in table.rows)
    grid = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    caption = f"<figcaption>{escaped(table.caption)}</figcaption>\n" if table.caption else ""
    return f'<figure>{caption}<div class="scroll" tabindex="0">{grid}</div></figure>'


def _row(cells: list[Cell]) -> Iterator[str]:
    """Yield the first cell names its row."""
    for place, cell in enumerate(cells):
        tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
        kind = " ".join(filter(None, ["number" if cell.is_number else "", "" if cell.note else cell.tone]))
        note = f"<small{_class(cell.tone)}>{escaped(cell.note)}</small>" if cell.note else ""
        yield f"<{tag}{scope}{_class(kind)}>{escaped(cell.text)}{note}</{tag}>"


def _drawings(block: Drawings, prefix: str) -> str:
    legend = "".join(f"<li>{_swatch(key)}{escaped(key.name)}</li>" for key in block.legend)
    figures = "\n".join(
        f'<figure class="drawing"><figcaption>{escaped(drawing.caption)}</figcaption>\n'
        f"{inline_svg(drawing.figure, drawing.caption, f'{prefix}f{place}-')}</figure>"
        for place, drawing in enumerate(block.drawings)
    )
    return (
        f'<ul class="legend">{legend}</ul>\n' if legend else ""
    ) + f'<div class="drawings{" twos" if block.in_twos else ""}">\n{figures}\n</div>'


def _swatch(key: Key) -> str:
    """Return a short line in the entry's colour and dashes."""
    dashes = {"-": "", "--": ' stroke-dasharray="7 4"', ":": ' stroke-dasharray="2 3"'}[key.line]
    color = color_variable(key.color)
    return (
        '<svg class="swatch" viewBox="0 0 28 10" aria-hidden="true">'
        f'<path d="M1 5H27" style="stroke: {color}"{dashes}/></svg>'
    )


def _example(example: Example) -> str:
    responses = "\n".join(
        f'<div class="response"><h4>{escaped(name)}</h4><div class="words" dir="auto">{escaped(text)}</div></div>'
        for name, text in example.responses.items()
    )
    facts = "".join(f"<li>{escaped(fact)}</li>" for fact in example.facts)
    return (
        f'<article class="example"><h3>{escaped(example.title)}</h3>\n'
        f'<div class="prompt"><h4>prompt</h4><div class="words" dir="auto">{escaped(example.prompt)}</div></div>\n'
        f'<div class="responses">\n{responses}\n</div>\n<ul class="facts">{facts}</ul></article>'
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _anchor(title: str) -> str:
    """Return a section's name in an address, from its title."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")
