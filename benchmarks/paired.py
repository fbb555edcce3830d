"""Paired differences of methods from a file of benchmarks/results: against the same worlds and seeds of a reference.

    python benchmarks/paired.py benchmarks/results/contrastive_synthetic.json test/accuracy test/ood/accuracy

prints for each metric and method the mean difference with Student's 95 % interval, over the worlds and seeds that both
were run on, and how many runs a difference of .02 needs at that spread. With `--against OTHER.json` a method's
reference is itself in another file: what it loses where the data are worse. Of runs that still lie on the disk,
`lightning-rm report` makes the same table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lightning_rm.analysis.paired import paired_difference, runs_needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("metrics", nargs="+", help="the path of a number within a run: test/ood/accuracy")
    parser.add_argument("--runs", default="runs", help="the file's key of method -> seed -> figures")
    parser.add_argument("--reference", default="baseline")
    parser.add_argument("--against", type=Path, help="another file: every method is held against itself there")
    arguments = parser.parse_args()
    methods = runs_of(arguments.file, arguments.runs)
    others = runs_of(arguments.against, arguments.runs) if arguments.against else None
    print("| method | metric | difference, 95 % interval | pairs | | runs for .02 |\n|---|---|---|---|---|---|")
    for metric in arguments.metrics:
        for name, runs in methods.items():
            reference = methods[arguments.reference] if others is None else others.get(name, {})
            found = None if reference is runs else paired_difference(figures(runs, metric), figures(reference, metric))
            if found is None:
                continue
            needed = runs_needed(found.spread) or ""
            print(f"| {name} | {metric} | {found.text} | {found.num} | {found.verdict} | {needed} |")


def runs_of(file: Path, key: str) -> dict[str, dict[str, Any]]:
    """Method -> seed -> figures."""
    return json.loads(file.read_text(encoding="utf-8"))[key]


def figures(runs: dict[str, Any], metric: str) -> dict[str, float]:
    """Seed -> number, of the runs that have it. Keys of sets hold slashes themselves: `test/ood` of `accuracy`."""
    found: dict[str, float] = {}
    for seed, figure in runs.items():
        name, _, last = metric.rpartition("/")
        value = figure.get(metric, figure.get(name, {}).get(last) if name else None)
        if value is not None:
            found[seed] = float(value)
    return found


if __name__ == "__main__":
    main()
