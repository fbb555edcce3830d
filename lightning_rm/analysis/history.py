"""Training curves as a run wrote them: what a metric was at each step. It reads files and draws nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
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


OF_PAIRS = (
    *("accuracy", "clean_accuracy", "length_accuracy", "tie_rate", "nll", "brier", "calibration_error"),
    *("margin", "margin_std"),
)
"""Metrics that compare a pair's two responses."""

History = Mapping[str, Curve]
"""Metric key -> its curve."""


def read_history(path: str | Path, name: object = None) -> dict[str, Curve]:
    """Read the `metrics.csv` of Lightning's CSVLogger.

    A row holds the metrics that were logged together; the cells of the others are empty. A last line without an end is
    left out: a run that goes on is writing it, or was killed there, and `0.` of `0.69` is another number.

    Args:
        path: the file.
        name: what an error calls it; None for its path.

    Returns:
        A curve for every column that has a value, `step` and `epoch` apart, in the order of their first ones; of sets
        of single responses none of what says something of pairs alone.

    Raises:
        ValueError: if it is a folder, or not such a file, or has other bytes than its run wrote.
    """
    path = Path(path)
    name = path if name is None else name
    if path.is_dir():
        raise ValueError(f"{name} is a folder; name the metrics.csv in it, which of a run is csv/metrics.csv")
    check_file(path)
    whole, end, _ = path.read_bytes().rpartition(b"\n")
    try:
        names = next(csv.reader(io.StringIO(whole.decode("utf-8"), newline="")), [])
        if "step" not in names:
            return {}
        types = {column: pa.float64() for column in names} | {"step": pa.int64()}
        options = ConvertOptions(column_types=types, null_values=[""])
        table: Any = read_csv(io.BytesIO(whole + end), convert_options=options)
        return _told(_curves(table, names))
    except (ValueError, KeyError, csv.Error) as error:
        raise ValueError(f"{name} is not a table of metrics: {' '.join(str(error).split())}") from error


def ends_whole(path: Path) -> bool:
    """Tell whether the last line of a file has an end, or there is none."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 1, 0))
        return file.read() in (b"", b"\n")


def _curves(table: Any, names: Sequence[str]) -> dict[str, Curve]:
    if table["step"].null_count:
        raise ValueError("a line has no step")
    steps = np.asarray(table["step"])
    firsts: dict[str, int] = {}
    curves: dict[str, Curve] = {}
    for name in names:
        rows = np.flatnonzero(np.asarray(table[name].is_valid()))
        if len(rows) and name not in ("step", "epoch"):
            firsts[name], curves[name] = int(rows[0]), Curve(steps[rows], np.asarray(table[name].drop_null()))
    return {name: curves[name] for name in sorted(curves, key=lambda name: firsts[name])}


def _told(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Return the curves that say something: a response that stands for a pair with itself has a margin of 0 and no
    accuracy.
    """
    places = {key.removesuffix("accuracy") for key in curves if key.endswith("/accuracy")}
    single = {
        place
        for place in places
        if np.isnan(curves[f"{place}accuracy"].values).all()
        and f"{place}margin_std" in curves
        and not curves[f"{place}margin_std"].values.any()
    }
    return {
        key: curve
        for key, curve in curves.items()
        if (name := key.rpartition("/")[2]) not in OF_PAIRS or key.removesuffix(name) not in single
    }


def within_training(curve: Curve, history: History) -> Curve:
    """Return a curve without the evaluation of the best weights that follows training, unless it has nothing else."""
    end = max((other.steps[-1] for key, other in history.items() if key.startswith("train")), default=np.inf)
    # The evaluation after training is logged at the last step once more: of equal steps the first counts.
    first = np.concatenate([[True], np.diff(curve.steps) > 0]) & (curve.steps <= end)
    return Curve(curve.steps[first], curve.values[first]) if first.any() else curve


def keys_of(history: Iterable[str], stage: str, name: str) -> list[str]:
    """Return `stage/name`, or without it every `stage/<set>/name`: subsets of one set have keys of that form too."""
    keys = list(history)
    if f"{stage}/{name}" in keys:
        return [f"{stage}/{name}"]
    return [key for key in keys if key.count("/") == 2 and key.startswith(f"{stage}/") and key.endswith(f"/{name}")]


def smoothed(curve: Curve) -> Curve:
    """Return the running mean of a curve over a twentieth of its points; a curve with few points as it is."""
    window = len(curve.values) // 20
    if window <= 1:
        return curve
    return Curve(running_mean(curve.steps, window).round().astype(np.int64), running_mean(curve.values, window))


def running_mean(values: NDArray[np.number], window: int) -> NDArray[np.float64]:
    """Return the (n - window + 1,) means of every `window` neighbours."""
    return np.convolve(values, np.full(window, 1 / window), mode="valid")
