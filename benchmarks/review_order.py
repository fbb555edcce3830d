"""Which pairs that people dispute does the review order put first? Against several annotators' votes on each pair.

    python benchmarks/review_order.py --prepare ukp/train.jsonl ukp.jsonl
    lightning-rm curate data=jsonl data.file=ukp.jsonl backbone=minilm backbone.path=MINILM layout=packed \\
        layout.order=prompt trainer=cpu data.max_tokens=512 data.batch_pairs=32 module.head_lr=1e-3 held_out=0.16 \\
        out=ukp
    python benchmarks/review_order.py ukp/strength.parquet --out benchmarks/results/review_order.json

`ukp.jsonl` has the pairs of four debates, and the annotators' votes of each in fields that nothing reads which trains
or votes. Two things are looked for: pairs on which at most three annotators back the label
(disputed), and pairs that fewer than half back (no majority). For every order: AUROC, and the share of such pairs among
the first N, over the share among all. Beside them stands the order by the difference of lengths, the smallest first,
which knows words alone. Intervals (95 %) are of a bootstrap over the pairs of each debate's side, and each order's
AUROC is compared with that of chance, 1/2.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import origin
from numpy.typing import NDArray

from lightning_rm.reviewing.order import review_order

DEBATES = (
    "ban-plastic-water-bottles",
    "christianity-or-atheism-",
    "evolution-vs-creation",
    "india-has-the-potential-to-lead-the-world-",
)

ORDERS = ("worth", "weakest", "disputed", "strongest")
FIRST = (50, 100, 200, 500)


def auroc(place: NDArray[np.float64], is_sought: NDArray[np.bool_]) -> float:
    """How often a pair that is sought comes before one that is not; equal places count one half."""
    _, inverse, counts = np.unique(place, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    sought = int(is_sought.sum())
    below = rank[is_sought].sum() - sought * (sought + 1) / 2
    return 1 - float(below / (sought * (len(place) - sought)))


def measured(place: NDArray[np.float64], is_sought: NDArray[np.bool_], first: int | None) -> float:
    if first is None:
        return auroc(place, is_sought)
    return float(is_sought[np.argsort(place, kind="stable")[:first]].mean())


def interval(
    place: NDArray[np.float64], is_sought: NDArray[np.bool_], side: NDArray[np.int64], first: int | None, times: int
) -> list[float]:
    """The value and its 95 % interval over pairs drawn again within each side."""
    draw = np.random.default_rng(0)
    members = [np.flatnonzero(side == one) for one in np.unique(side)]
    values: list[float] = []
    for _ in range(times):
        taken = np.concatenate([draw.choice(inside, len(inside)) for inside in members])
        values.append(measured(place[taken], is_sought[taken], first))
    low, high = np.quantile(values, (0.025, 0.975))
    return [round(float(value), 4) for value in (measured(place, is_sought, first), low, high)]


def words(turns: list[dict[str, Any]]) -> int:
    return sum(len(turn["content"].split()) for turn in turns)


def prepare(pairs: Path, out: Path) -> None:
    """Write the pairs of four debates, the annotators' votes and their strength under names of our own."""
    lines: list[str] = []
    for line in pairs.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["subset"].rsplit("_", 1)[0] in DEBATES:
            row["human_for"], row["human_equal"], row["human_against"] = row.pop("votes")
            row["human_strength"] = row.pop("strength")
            lines.append(json.dumps(row) + "\n")
    out.write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strength", type=Path, nargs="?")
    parser.add_argument("--prepare", type=Path, nargs=2, metavar=("PAIRS", "OUT"))
    parser.add_argument("--times", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.prepare is not None:
        prepare(*arguments.prepare)
        return
    if arguments.strength is None:
        parser.error("name an annotated file, or --prepare")
    rows = pq.read_table(arguments.strength).to_pylist()
    mean, std, backing, total = (
        np.array(values, np.float64)
        for values in zip(
            *(
                (
                    row["strength_mean"],
                    row["strength_std"],
                    row["human_for"],
                    row["human_for"] + row["human_equal"] + row["human_against"],
                )
                for row in rows
            ),
            strict=True,
        )
    )
    side = np.unique([row["prompt_id"] for row in rows], return_inverse=True)[1]
    places: dict[str, NDArray[np.float64]] = {}
    for name in ORDERS:
        place = np.empty(len(rows))
        place[review_order(mean, std, name).row] = np.arange(len(rows))
        places[name] = place
    gap = [abs(words(row["chosen"]) - words(row["rejected"])) for row in rows]
    places["length"] = np.array(gap, np.float64)
    places["chance"] = np.random.default_rng(0).random(len(rows))
    sought = {"disputed": backing <= 3, "no majority": backing < total / 2}
    results: dict[str, Any] = {
        **origin(pa),
        "pairs": len(rows),
        "sides": int(side.max()) + 1,
        "voters_agree": round(float((mean > 0).mean()), 4),
        "sought": {},
    }
    for what, is_sought in sought.items():
        found: dict[str, Any] = {"share": round(float(is_sought.mean()), 4)}
        for name, place in places.items():
            found[name] = {
                "auroc": interval(place, is_sought, side, None, arguments.times),
                **{f"first {num}": interval(place, is_sought, side, num, arguments.times) for num in FIRST},
            }
        results["sought"][what] = found
    print(json.dumps(results, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
