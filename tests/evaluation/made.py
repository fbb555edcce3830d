"""Items and files of benchmarks, made for tests; no row is of any published one."""

from __future__ import annotations

import json
import random
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


LLMBAR = ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual")


def llmbar(folder: Path, num: int = 4, words: int = 6) -> Path:
    """The five files of LLMBar with made rows; `words` more of each first answer than of the second."""
    draw = random.Random(0)

    def answer(number: int) -> str:
        return " ".join(draw.choice(("red", "apple", "of", "seven", "is", "river")) for _ in range(number))

    for name in LLMBAR:
        rows = [
            {
                "input": f"{name} question {n}",
                "output_1": answer(words + n),
                "output_2": answer(draw.randrange(2, 8)),
                "label": draw.choice((1, 2)),
            }
            for n in range(num)
        ]
        write(folder / f"{name.lower()}.json", rows)
    return folder
