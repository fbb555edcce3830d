"""How well the strengths of one file agree with those of another, or with a field of the rows they were made of.

    python benchmarks/strength_agreement.py cheap.parquet full.parquet
    python benchmarks/strength_agreement.py ukp_val.parquet ukp/val.jsonl --field strength
    python benchmarks/strength_agreement.py alpaca_val.parquet alpaca/val.jsonl --field p_chosen --edges .75 .9 .99 .999

Prints Pearson's and Spearman's correlation; for a field also, by its value, how often the voters are right and how
often the longer response is.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_rm.analysis.strength import correlation


def strengths(path: Path) -> dict[str, float]:
    """Pair id -> strength."""
    table = pq.read_table(path, columns=["id", "strength_mean"])
    return dict(zip(table["id"].to_pylist(), table["strength_mean"].to_pylist(), strict=True))


def right(margin: NDArray[np.float64]) -> float:
    """How many of these margins prefer the chosen response; a tie is half of one."""
    return float(np.mean((margin > 0) + 0.5 * (margin == 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an annotated .parquet file")
    parser.add_argument("other", type=Path, help="another one, or a .jsonl file")
    parser.add_argument("--field", default="strength", help="of the .jsonl rows")
    parser.add_argument(
        "--edges", type=float, nargs="+", default=[0.4, 0.6, 0.8, 1.0], help="between bins of the field"
    )
    arguments = parser.parse_args()
    ours = strengths(arguments.file)
    rows: dict[str, dict[str, Any]] = {}
    if arguments.other.suffix == ".parquet":
        theirs = strengths(arguments.other)
    else:
        with arguments.other.open(encoding="utf-8") as file:
            rows = {row["id"]: row for row in map(json.loads, file)}
        theirs = {name: float(row[arguments.field]) for name, row in rows.items()}
    names = sorted(ours.keys() & theirs.keys())
    mean, other = np.array([ours[name] for name in names]), np.array([theirs[name] for name in names])
    related = correlation(mean, other)
    print(f"{related.num_pairs:,} pairs: Pearson {related.pearson:.3f}, Spearman {related.spearman:.3f}")
    if not rows:
        print(f"the same sign in {np.mean(np.sign(mean) == np.sign(other)):.3f}")
        return
    longer = np.array([len(rows[name]["chosen"]) - len(rows[name]["rejected"]) for name in names], np.float64)
    print(f"all: accuracy {right(mean):.3f}, the longer response {right(longer):.3f}")
    print(f"of the difference in length: Spearman {correlation(longer, other).spearman:.3f}")
    for low, high in pairwise([-np.inf, *arguments.edges, np.inf]):
        inside = (other >= low) & (other < high)
        if inside.any():
            says = f"accuracy {right(mean[inside]):.3f}, the longer response {right(longer[inside]):.3f}"
            print(f"{arguments.field} from {low:g} to {high:g}: {inside.sum():,} pairs, {says}")


if __name__ == "__main__":
    main()
