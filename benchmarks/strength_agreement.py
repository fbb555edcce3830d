"""How well the strengths of one file agree with those of another, or with a field of the rows they were made of.

    python benchmarks/strength_agreement.py cheap.parquet full.parquet
    python benchmarks/strength_agreement.py ukp_val.parquet ukp/val.jsonl --field strength
    python benchmarks/strength_agreement.py alpaca_val.parquet alpaca/val.jsonl --field p_chosen --edges .75 .9 .99 .999

Prints Pearson's and Spearman's correlation; for a field also the voters' accuracy by its value.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lightning_rm.analysis.strength import correlation


def strengths(path: Path, field: str) -> dict[str, float]:
    """Pair id -> strength, or the field of a JSONL row."""
    if path.suffix == ".parquet":
        table = pq.read_table(path, columns=["id", "strength_mean"])
        return dict(zip(table["id"].to_pylist(), table["strength_mean"].to_pylist(), strict=True))
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["id"]: float(row[field]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an annotated .parquet file")
    parser.add_argument("other", type=Path, help="another one, or a .jsonl file")
    parser.add_argument("--field", default="strength", help="of the .jsonl rows")
    parser.add_argument(
        "--edges", type=float, nargs="+", default=[0.4, 0.6, 0.8, 1.0], help="between bins of the field"
    )
    arguments = parser.parse_args()
    ours, theirs = strengths(arguments.file, arguments.field), strengths(arguments.other, arguments.field)
    names = sorted(ours.keys() & theirs.keys())
    mean, other = np.array([ours[name] for name in names]), np.array([theirs[name] for name in names])
    related = correlation(mean, other)
    print(f"{related.num_pairs:,} pairs: Pearson {related.pearson:.3f}, Spearman {related.spearman:.3f}")
    if arguments.other.suffix == ".parquet":
        print(f"the same sign in {np.mean(np.sign(mean) == np.sign(other)):.3f}")
        return
    for low, high in pairwise([-np.inf, *arguments.edges, np.inf]):
        inside = (other >= low) & (other < high)
        if inside.any():
            share = np.mean((mean[inside] > 0) + 0.5 * (mean[inside] == 0))
            print(f"{arguments.field} from {low:g} to {high:g}: {inside.sum():,} pairs, accuracy {share:.3f}")


if __name__ == "__main__":
    main()
