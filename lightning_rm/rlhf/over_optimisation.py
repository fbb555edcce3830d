"""`OverOptimisation`: the results of choosing the best of n, as a table and as files. It knows no model and no text."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.drafts import write_text
from lightning_rm.evaluation.statistics import Interval
from lightning_rm.markup import escaped_markdown, markdown_table
from lightning_rm.rlhf.curves import Curve
from lightning_rm.told import finite

OF_DRAWS = "intervals are of 95 %, over draws of prompts"


@dataclass(frozen=True)
class OverOptimisation:
    """What came out of choosing the best of n by reward models.

    Args:
        curves: name of a model -> its curve; the first is the reference of the others.
        num_prompts: P.
        num_samples: N, of each prompt.
        gold: what gold is, in words.
        left_out: why prompts were left out -> how many.
        files: what was written.
        notes: remarks on the files.
    """

    curves: dict[str, Curve]
    num_prompts: int
    num_samples: int
    gold: str
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    files: list[Path] = field(default_factory=list[Path])
    notes: list[str] = field(default_factory=list[str])

    def rows(self) -> list[dict[str, str]]:
        """Return the table, a row per model, in words."""
        return [
            {
                "model": name,
                "gold at n=1": f"{curve.summary.start:.3f}",
                "highest": f"{curve.summary.highest:.3f}",
                "at n": str(curve.summary.n_highest),
                f"at n={curve.n[-1]}": _with(curve.summary.end, curve.summary.end_interval),
                "fall": _with(curve.summary.fall, curve.summary.fall_interval),
                "regret": f"{curve.summary.regret:.3f}",
                "against the first": (
                    ""
                    if curve.summary.against is None
                    else _with(curve.summary.against, curve.summary.against_interval, signed=True)
                ),
            }
            for name, curve in self.curves.items()
        ]

    def markdown(self) -> str:
        """Return the table, and what it was made of, in Markdown."""
        first, *_ = rows = self.rows()
        lines = [[escaped_markdown(name), *figures] for name, *figures in (row.values() for row in rows)]
        table = markdown_table([list(first), *lines])
        return "\n".join(["# Over-optimisation by the best of n", "", self.about(), "", table, ""])

    def about(self) -> str:
        """Return what the figures are of, in a sentence or two."""
        left_out = "".join(f" Left out: {number:,} prompts, {why}." for why, number in self.left_out.items())
        none = all(isnan(curve.summary.end_interval.low) for curve in self.curves.values())
        return (
            f"{self.num_prompts:,} prompts, {self.num_samples:,} samples each; gold is {self.gold}; "
            f"{'no intervals: all draws of prompts are alike' if none else OF_DRAWS}.{left_out}"
        )

    def write(self, folder: Path) -> list[Path]:
        """Write `overoptimise.json`, `.csv` and `.md`, each whole or not at all."""
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["model", "n", "kl", "gold", "gold_low", "gold_high", "proxy"])
        for name, curve in self.curves.items():
            columns = (curve.n, curve.kl, curve.gold, curve.low, curve.high, curve.proxy)
            rows = zip(*(column.tolist() for column in columns), strict=True)
            writer.writerows([name, *map(finite, values)] for values in rows)
        told = {
            "num_prompts": self.num_prompts,
            "num_samples": self.num_samples,
            "gold": self.gold,
            "left_out": self.left_out,
            "models": {name: _listed(curve) for name, curve in self.curves.items()},
        }
        texts = {
            "overoptimise.json": json.dumps(finite(told), indent=2) + "\n",
            "overoptimise.csv": table.getvalue(),
            "overoptimise.md": self.markdown(),
        }
        return [write_text(folder / name, text) for name, text in texts.items()]


def _listed(curve: Curve) -> dict[str, Any]:
    """Return a curve with lists in place of arrays."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(curve).items()}


def _with(value: float, bounds: Interval | None, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    known = "" if bounds is None or isnan(bounds.low) else f" [{bounds.low:{sign}.3f}, {bounds.high:{sign}.3f}]"
    return f"{value:{sign}.3f}{known}"
