"""Figures without ink: what a small run spends two thirds of its time on, and what `tests/analysis` draws for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Figures are put together and their files are there, but nothing is drawn."""

    def savefig(figure: Figure, path: Path, **_: Any) -> None:
        path.write_text(f"a figure of {len(figure.axes)} axes")

    patch.setattr(Figure, "savefig", savefig)
