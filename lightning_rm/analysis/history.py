"""Training curves as a run wrote them: what a metric was at each step. It reads files and draws nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.csv import ConvertOptions, read_csv

from lightning_rm.checksums import check_file


class Curve(NamedTuple):
    """One metric over a run: `steps` (n,) of the optimizer and `values` (n,)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


History = Mapping[str, Curve]
"""Metric key -> its curve."""


def read_history(path: str | Path) -> dict[str, Curve]:
    """Read the `metrics.csv` of Lightning's CSVLogger.

    A row holds the metrics that were logged together; the cells of the others are empty.

    Args:
        path: the file.

    Returns:
        A curve for every column that has a value, `step` and `epoch` apart, in the order of their first ones.

    Raises:
        ValueError: if the file has other bytes than its run wrote.
    """
    check_file(Path(path))
    with Path(path).open(newline="", encoding="utf-8") as file:
        names = next(csv.reader(file), [])
    if "step" not in names:
        return {}
    types = {name: pa.float64() for name in names} | {"step": pa.int64()}
    table: Any = read_csv(path, convert_options=ConvertOptions(column_types=types, null_values=[""]))
    steps = np.asarray(table["step"])
    firsts: dict[str, int] = {}
    curves: dict[str, Curve] = {}
    for name in names:
        rows = np.flatnonzero(np.asarray(table[name].is_valid()))
        if len(rows) and name not in ("step", "epoch"):
            firsts[name], curves[name] = int(rows[0]), Curve(steps[rows], np.asarray(table[name].drop_null()))
    return {name: curves[name] for name in sorted(curves, key=lambda name: firsts[name])}


def within_training(curve: Curve, history: History) -> Curve:
    """Return a curve without the evaluation of the best weights that follows training, unless it has nothing else."""
    end = max((other.steps[-1] for key, other in history.items() if key.startswith("train")), default=np.inf)
    # The evaluation after training is logged at the last step once more: of equal steps the first counts.
    first = np.concatenate([[True], np.diff(curve.steps) > 0]) & (curve.steps <= end)
    return Curve(curve.steps[first], curve.values[first]) if first.any() else curve


def smoothed(curve: Curve) -> Curve:
    """Return the running mean of a curve over a twentieth of its points; a curve with few points as it is."""
    window = len(curve.values) // 20
    if window <= 1:
        return curve
    return Curve(running_mean(curve.steps, window).round().astype(np.int64), running_mean(curve.values, window))


def running_mean(values: NDArray[np.number], window: int) -> NDArray[np.float64]:
    """Return the (n - window + 1,) means of every `window` neighbours."""
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
