"""Items and files of benchmarks, made for tests; no row is of any published one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.evaluation.benchmarks.benchmark import Benchmark
from lightning_rm.evaluation.credit import Rule
from lightning_rm.evaluation.items import Floats, Items
from lightning_rm.evaluation.statistics import column_means


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as a JSON array, or a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else lines)
    return path


def grid(rewards: Sequence[Sequence[float]]) -> Floats:
    """Rewards of items with different numbers of responses."""
    filled = np.full((len(rewards), max(map(len, rewards))), np.nan)
    for number, row in enumerate(rewards):
        filled[number, : len(row)] = row
    return filled


def sections(
    benchmark: Benchmark, items: Items, rewards: Sequence[Sequence[float]], rule: Rule = "own"
) -> dict[str, float]:
    """Every section of a benchmark of given rewards."""
    means = column_means(benchmark.columns(items, grid(rewards), rule))
    return {name: float(value) for name, value in benchmark.combine(means).items()}
