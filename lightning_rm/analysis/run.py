"""The figures of one run, drawn from the files it wrote: `csv/metrics.csv` and `pairs/*.parquet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_rm.analysis.evidence import set_name
from lightning_rm.analysis.history import read_history
from lightning_rm.analysis.plots.parts import part_curves, parts
from lightning_rm.analysis.plots.run import reliability_diagram, reward_histogram, training_curves
from lightning_rm.analysis.plots.style import figure_files, save_figure
from lightning_rm.metrics.alone import stand_alone
from lightning_rm.parquet_files import read_parquet


def write_figures(run: Path, *, missing: bool = False) -> list[Path]:
    """Draw training curves, the method's parts, and for every evaluated set its reward histogram and, where
    it has pairs, reliability.

    Args:
        run: the run's folder.
        missing: those alone that are not there, which a full disk may have kept from being drawn.

    Returns:
        The files written under `figures/`, PNG and SVG each; a run that logged nothing has no curves.
    """
    written: list[Path] = []
    for name, draw in _figures(run):
        path = run / "figures" / name
        if not (missing and all(file.is_file() for file in figure_files(path))):
            written += save_figure(draw(), path)
    return written


def _figures(run: Path) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield the name of every figure, and what draws it."""
    logged = run / "csv" / "metrics.csv"
    if logged.exists():
        history = read_history(logged)
        yield "curves", partial(training_curves, history)
        if parts(history):
            yield "parts", partial(part_curves, history)
    for records in sorted((run / "pairs").glob("*.parquet")):
        chosen, rejected, label = _rewards(records)
        alone, name = stand_alone(chosen, rejected, label), set_name(records.stem)
        of_pairs = chosen[~alone], rejected[~alone]
        yield f"rewards_{records.stem}", partial(reward_histogram, *of_pairs, data_set=name, alone=chosen[alone])
        if not alone.all() or not len(alone):
            margin = of_pairs[0] - of_pairs[1]
            yield f"reliability_{records.stem}", partial(reliability_diagram, margin, label[~alone], data_set=name)


def _rewards(records: Path) -> tuple[NDArray[np.float64], ...]:
    """Return (P,) rewards of chosen and of rejected, and labels."""
    table = read_parquet(records)
    return tuple(np.asarray(table[name]) for name in ("chosen", "rejected", "label"))
