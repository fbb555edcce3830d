"""What all figures have in common."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes

from lightning_rm.analysis.plots.style import one_panel


@pytest.mark.parametrize(("names", "columns"), [("abc", 3), (("a long name of a line",) * 3, 2), (("w" * 45,) * 3, 1)])
def test_no_entry_of_a_legend_reaches_over_the_edge(names: tuple[str, ...], columns: int) -> None:
    def draw(axes: Axes) -> None:
        for number, name in enumerate(names):
            axes.plot([0, 1], label=f"{name}{number}")

    figure = one_panel(draw)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len({text.get_window_extent().x0 for text in legend.get_texts()}) == columns
    assert legend.get_window_extent().x0 >= 0
    assert legend.get_window_extent().x1 <= figure.bbox.width
