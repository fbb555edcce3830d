"""Folders as runs leave them, made without training."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml


def write_run(folder: Path, name: str, seed: int, settings: dict[str, Any], **results: dict[str, float]) -> None:
    """A run's `config.yaml` and `results.json`; `test__ood` stands for the set `test/ood`."""
    folder.mkdir(parents=True)
    config = {"name": name, "seed": seed, "paths": {"run": str(folder)}, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if results:
        told = {key.replace("__", "/"): metrics for key, metrics in results.items()}
        (folder / "results.json").write_text(json.dumps(told))


def write_curves(folder: Path, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """A run's `csv/metrics.csv`."""
    (folder / "csv").mkdir(exist_ok=True)
    with (folder / "csv" / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", *curves])
        writer.writeheader()
        writer.writerows(
            {"epoch": 0, "step": step, key: value} for key, curve in curves.items() for step, value in curve
        )


def write_rewards(folder: Path, stem: str, margin: Sequence[float], words: Sequence[Mapping[str, str]] = ()) -> None:
    """A run's rewards of one set, and its first pairs in words."""
    (folder / "pairs").mkdir(exist_ok=True)
    num = len(margin)
    columns = {
        "row": np.arange(num),
        "subset": ["all"] * num,
        "chosen": np.array(margin, np.float32),
        "rejected": np.zeros(num, np.float32),
        "label": np.ones(num),
        "clean": np.full(num, np.nan),
    }
    pq.write_table(pa.table(columns), folder / "pairs" / f"{stem}.parquet")
    lines = [json.dumps({"row": row, "id": f"id {row}", **one}) + "\n" for row, one in enumerate(words)]
    (folder / "pairs" / f"{stem}_worst.jsonl").write_text("".join(lines))
