"""Preference strength: the annotated pairs that runs were trained on, and runs that were trained on a part of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lightning_rm.analysis.page.blocks import Block, Drawing, Drawings, Folded, Section, Text
from lightning_rm.analysis.plots.strength import (
    draw_agreement,
    draw_disagreement,
    draw_group_means,
    draw_group_spreads,
    draw_strengths,
)
from lightning_rm.analysis.plots.style import one_panel
from lightning_rm.analysis.reports.recipes import decile_figure, prefix_figure
from lightning_rm.analysis.reports.strength import NUM_GROUPS, read_strength
from lightning_rm.analysis.runs import Run
from lightning_rm.analysis.strength import agreement, grouped
from lightning_rm.analysis.study import Study

METRIC = "test/accuracy"

SIZE = (4.6, 3.3)
"""Inches of a panel."""


def strength_section(study: Study, strength: str | Path | None) -> Section:
    """Write figures of annotated pairs, and of runs by decile or by share.

    Args:
        study: of the runs.
        strength: an annotated file; None for those that the runs name as their data, as far as they still lie there.

    Raises:
        ValueError: if the file that is named is not an annotated one.
    """
    runs = [one.run for one in study.evidence.values()]
    blocks: list[Block] = []
    tables = {str(strength): read_strength(strength)} if strength is not None else _found(runs)
    for place, (name, table) in enumerate(tables.items()):
        drawings = Drawings(_drawings(table, f"strength_{place}" if place else "strength"))
        told = [Text(f"Of {name}."), drawings]
        blocks += told if place == 0 else [Folded(name, told)]
    by_part = _by_part([one.run for one in study.evidence.values() if one.results])
    if by_part:
        blocks.append(Drawings(by_part))
    gone = [] if strength is not None else [name for name in _named(runs) if not Path(name).is_file()]
    if gone:
        blocks.append(
            Text(f"Not there any more: {', '.join(gone)}, on which runs were trained; strength= names another.")
        )
    if not blocks:
        return Section("Preference strength", [], "The runs were not trained on annotated pairs; strength= names some.")
    return Section("Preference strength", blocks)


def _named(runs: Sequence[Run]) -> list[str]:
    """Return the Parquet files that runs name as their data."""
    named = dict.fromkeys(str(run.settings.get("data.file")) for run in runs)
    return [name for name in named if name.endswith(".parquet")]


def _found(runs: Sequence[Run]) -> Mapping[str, Any]:
    """Return the annotated files among what the runs name as their data; a run may lie far from its data."""
    found: dict[str, Any] = {}
    for name in _named(runs):
        if Path(name).is_file():
            try:
                found[name] = read_strength(name)
            except ValueError:  # pairs without votes
                continue
    return found


def _drawings(table: Any, stem: str) -> list[Drawing]:
    mean, std, clean = (
        np.asarray(table[name].to_pylist() if name in table.column_names else [None] * len(table), float)
        for name in ("strength_mean", "strength_std", "clean")
    )
    known = ~np.isnan(mean)
    if not known.any():
        return []
    groups = grouped(mean, std, num_groups=min(NUM_GROUPS, int(known.sum())))
    drawings = [
        _panel(f"{stem}_mean", lambda axes: draw_strengths(axes, mean[known])),
        _panel(f"{stem}_std", lambda axes: draw_disagreement(axes, std[known])),
        _panel(f"{stem}_groups", lambda axes: draw_group_means(axes, groups)),
        _panel(f"{stem}_spreads", lambda axes: draw_group_spreads(axes, groups)),
    ]
    truth = known & ~np.isnan(clean)
    if truth.sum() > 1:
        agreed = agreement(mean, clean, num_groups=min(NUM_GROUPS, int(truth.sum())))
        drawings.append(_panel(f"{stem}_agreement", lambda axes: draw_agreement(axes, agreed)))
    return drawings


def _panel(name: str, draw: Callable[[Axes], None]) -> Drawing:
    """Return a panel whose title is said above it."""
    figure = one_panel(draw, SIZE)
    (axes,) = figure.axes
    caption = axes.get_title(loc="left")
    axes.set_title("", loc="left")
    return Drawing(name, figure, caption)


def _by_part(runs: Sequence[Run]) -> list[Drawing]:
    """Accuracy by the decile or the share that runs were trained on, where some were."""
    drawings: list[Drawing] = []
    measured = [run for run in runs if isfinite(run.results().get("test", {}).get("accuracy", nan))]
    deciles, prefixes = ([run for run in measured if name in run.treatments] for name in ("decile", "prefix"))
    if deciles:
        drawings.append(Drawing("deciles", decile_figure(deciles, METRIC), "Trained on one tenth of the pairs"))
    if prefixes:
        drawings.append(Drawing("prefixes", prefix_figure(prefixes, METRIC), "Trained on a share of the pairs"))
    return drawings
