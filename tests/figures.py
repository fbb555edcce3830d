"""Figures without ink: what a small run spends two thirds of its time on, and what `tests/analysis` draws for all."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from lightning_rm.analysis import run


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Figures are put together and their files and drawings in pages are there, but nothing is on them."""

    def savefig(figure: Figure, path: Path | StringIO, **_: Any) -> None:
        if isinstance(path, StringIO):
            path.write('<svg viewBox="0 0 1 1" />')
        else:
            path.write_text(f"a figure of {len(figure.axes)} axes")

    patch.setattr(Figure, "savefig", savefig)


def leave_blank(patch: pytest.MonkeyPatch) -> None:
    """The two figures of each set's pairs and that of a method's parts are empty: a fifth of a small run.

    What is on them `tests/analysis/plots` looks at; of a run as a user starts it they are drawn.
    """
    for name in ("reward_histogram", "reliability_diagram", "part_curves"):
        patch.setattr(run, name, lambda *_, **__: Figure())


@contextmanager
def full_for_figures(patch: pytest.MonkeyPatch) -> Generator[None]:
    """The disk has no room for a figure."""

    def savefig(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with patch.context() as within:
        within.setattr(Figure, "savefig", savefig)
        yield
