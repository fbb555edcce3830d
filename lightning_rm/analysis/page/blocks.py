"""What a page is made of: sections of text, tables, figures and examples. How they are shown is not known here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from matplotlib.figure import Figure

from lightning_rm.analysis.plots.style import Key

Tone = Literal["", "better", "worse", "muted"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: a value, and beneath it a smaller note that may be toned.

    Args:
        text: the value.
        note: what is said beneath it.
        tone: of the note, or of the value where there is no note.
        is_number: whether it stands at the right of its column.
    """

    text: str
    note: str = ""
    tone: Tone = ""
    is_number: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under the headings of all rows, in the order in which they first come up.

    Args:
        rows: heading -> cell; a plain text is a cell without a note.
        caption: what the table shows, said above it.
    """

    rows: Sequence[Mapping[str, Cell | str]]
    caption: str = ""

    @property
    def columns(self) -> list[str]:
        """The headings."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def cells(self, row: Mapping[str, Cell | str]) -> list[Cell]:
        """Return a row's cell under every heading, an empty one where it has none."""
        found = [row.get(column, "") for column in self.columns]
        return [cell if isinstance(cell, Cell) else Cell(cell) for cell in found]


@dataclass(frozen=True)
class Drawing:
    """A figure of one panel, with the words that say what is seen.

    Args:
        name: of its file, where it has one.
        figure: the panel.
        caption: says what is seen.
    """

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Drawings:
    """Figures side by side under one legend, as many a row as there is room for.

    Args:
        drawings: in order.
        legend: what their colours and lines mean.
        in_twos: whether every two belong together: then there are no more in a row.
    """

    drawings: Sequence[Drawing]
    legend: Sequence[Key] = ()
    in_twos: bool = False


@dataclass(frozen=True)
class Example:
    """A pair to read: both responses side by side under their prompt.

    Args:
        title: which pair it is.
        prompt: what was answered.
        responses: heading -> text, two of them.
        facts: what is known of it, a line each.
    """

    title: str
    prompt: str
    responses: Mapping[str, str]
    facts: Sequence[str] = ()


@dataclass(frozen=True)
class Folded:
    """Blocks that the reader opens first, under what they are."""

    title: str
    blocks: Sequence[Text | Table | Drawings | Example]


Block = Text | Table | Drawings | Example | Folded


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it.

    Args:
        title: the heading.
        blocks: in order.
        lead: the sentence to read if only one is read.
        compares: whether it says which method is better: a terminal shows what does.
    """

    title: str
    blocks: Sequence[Block]
    lead: str = ""
    compares: bool = False


@dataclass(frozen=True)
class Page:
    """The whole.

    Args:
        title: its heading.
        subtitle: what it is of, beneath.
        sections: in order; those without a block and a lead are left out.
        counts: what the page is of at a glance, number by name, such as `runs: 9`.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    counts: Mapping[str, str] = field(default_factory=dict[str, str])
