"""The figures of one run, drawn from the files it wrote: `csv/metrics.csv` and `pairs/*.parquet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_rm.analysis.evidence import set_name
from lightning_rm.analysis.history import read_history
from lightning_rm.analysis.plots.parts import part_curves, parts
from lightning_rm.analysis.plots.run import reliability_diagram, reward_histogram, training_curves
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.parquet_files import read_parquet


def write_figures(run: Path) -> list[Path]:
    """Draw training curves, the method's parts, and for every evaluated set its reward histogram and reliability.

    Args:
        run: the run's folder.

    Returns:
        The files written under `figures/`, PNG and SVG each; a run that logged nothing has no curves.
    """
    folder = run / "figures"
    written: list[Path] = []
    logged = run / "csv" / "metrics.csv"
    if logged.exists():
        history = read_history(logged)
        written += save_figure(training_curves(history), folder / "curves")
        if parts(history):
            written += save_figure(part_curves(history), folder / "parts")
    for records in sorted((run / "pairs").glob("*.parquet")):
        table = read_parquet(records)
        chosen, rejected, label = (np.asarray(table[name]) for name in ("chosen", "rejected", "label"))
        name = set_name(records.stem)
        rewards = reward_histogram(chosen, rejected, data_set=name)
        reliability = reliability_diagram(chosen - rejected, label, data_set=name)
        written += save_figure(rewards, folder / f"rewards_{records.stem}")
        written += save_figure(reliability, folder / f"reliability_{records.stem}")
    return written
