"""Read what runs have left in their folders: results, curves, rewards of every pair, texts of the worst pairs.

Nothing is demanded: what a run lacks, or what cannot be read, is said of the run and the rest is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightning_rm.analysis.history import Curve, ends_whole, read_history
from lightning_rm.analysis.runs import Run, read_results
from lightning_rm.checksums import check_file
from lightning_rm.counts import number_of
from lightning_rm.metrics.alone import stand_alone
from lightning_rm.parquet_files import read_parquet
from lightning_rm.told import json_of

T = TypeVar("T")
Results = Mapping[str, Mapping[str, float]]
"""Data set -> metric -> value."""


class Records(NamedTuple):
    """The rewards of one data set's N pairs, without responses by themselves: `row` is a pair's place in the set,
    `prompt` the name of its prompt (of its own where nobody kept one), `clean` the true label or NaN.
    """

    row: NDArray[np.int64]
    prompt: Sequence[str]
    subset: Sequence[str]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    label: NDArray[np.float64]
    clean: NDArray[np.float64]

    @property
    def margin(self) -> NDArray[np.float64]:
        """(N,) reward of chosen minus reward of rejected."""
        return self.chosen - self.rejected


class Words(NamedTuple):
    """The text of a pair, for people to read."""

    id: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Evidence:
    """One run and what it has left in its folder.

    Args:
        run: whose it is.
        results: empty where the run has not ended.
        curves: metric key -> curve over training; empty of a run that wrote no CSV.
        records: data set, called as in `results`, -> rewards of its pairs.
        words: data set -> row -> the pair in words, of the worst pairs.
        lacks: what is not there and why, a sentence each.
    """

    run: Run
    results: Results
    curves: Mapping[str, Curve]
    records: Mapping[str, Records]
    words: Mapping[str, Mapping[int, Words]]
    lacks: Sequence[str]

    def is_finite(self, name: str) -> bool:
        """Tell whether it has the rewards of a set and all are finite, as those of a diverged run are not: `lacks` says
        so.
        """
        return name in self.records and bool(np.isfinite(self.records[name].margin).all())


def evidence_of(run: Run) -> Evidence:
    """Read what a run has left in its folder."""
    lacks: list[str] = []

    def read(path: Path, how: Callable[[Path], T], nothing: T, absent: str) -> T:
        if not path.is_file():
            lacks.append(absent)
            return nothing
        try:
            return how(path)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, pa.ArrowException) as error:
            lacks.append(f"{path.relative_to(run.folder)} cannot be read: {' '.join(str(error).split())}")
            return nothing

    results = read(
        run.folder / "results.json", partial(read_results, name="it"), {}, "no results.json: the run has not ended"
    )
    logged = run.folder / "csv" / "metrics.csv"
    curves = read(logged, partial(read_history, name="it"), {}, "no csv/metrics.csv (logger=none?): it has no curves")
    if curves and not ends_whole(logged):
        lacks.append("csv/metrics.csv ends within a line, which is left out")
    records: dict[str, Records] = {}
    words: dict[str, Mapping[int, Words]] = {}
    files = sorted(file for file in (run.folder / "pairs").glob("*.parquet") if file.is_file())
    if not files:
        lacks.append("no pairs/*.parquet: no reliability, no temperature, no worst pairs")
    for path in files:
        name = set_name(path.stem)
        found, num_alone = read(path, _records, (None, 0), "")
        if num_alone:
            nothing = ": no reliability, no temperature, no worst pairs of it" if found is None else ""
            lacks.append(f"{number_of(num_alone, 'row')} of {name} have one response, and are no pairs{nothing}")
        if found is not None:
            records[name] = found
            if not np.isfinite(found.margin).all():
                lacks.append(
                    f"its rewards of {name} are not finite: no reliability, no temperature, no worst pairs of it"
                )
        listed = path.with_name(f"{path.stem}_worst.jsonl")
        if listed.is_file():
            words[name] = read(listed, _words, {}, "")
    return Evidence(run, results, curves, records, words, lacks)


def set_name(stem: str) -> str:
    """Return a data set as `results.json` calls it, from its file of rewards.

    test_ood -> test/ood, test_test -> test
    """
    stage, _, name = stem.partition("_")
    return stage if name in ("", stage) else f"{stage}/{name}"


def _records(path: Path) -> tuple[Records | None, int]:
    """Return the pairs of a file, None where it has none but responses by themselves, and the number of these."""
    check_file(path)
    table: Any = read_parquet(path)
    if not len(table):
        raise ValueError("it has no pairs")
    alone = stand_alone(*(np.asarray(table[name]) for name in ("chosen", "rejected", "label")))
    if alone.all():
        return None, len(alone)
    table = table.filter(~alone)
    numbers = {name: np.asarray(table[name], np.float64) for name in ("chosen", "rejected", "label", "clean")}
    if np.isnan(numbers["label"]).any():
        raise ValueError("a pair has no label")
    row = np.asarray(table["row"], np.int64)
    names = table["prompt_id"].to_pylist() if "prompt_id" in table.column_names else [None] * len(row)
    prompt = [f"row {place}" if name is None else str(name) for place, name in zip(row, names, strict=True)]
    return Records(row, prompt, table["subset"].to_pylist(), **numbers), int(alone.sum())


def _words(path: Path) -> dict[int, Words]:
    check_file(path)
    rows = [json_of(line, "it") for line in path.read_text(encoding="utf-8").splitlines()]
    return {int(row["row"]): Words(*(str(row[name]) for name in Words._fields)) for row in rows}
