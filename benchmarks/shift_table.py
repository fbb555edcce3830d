"""The tables of `shift.py` over the worlds and seeds that are finished, each row paired with the same ones' baseline.

    python benchmarks/shift_table.py runs/shift --out benchmarks/results/shift.json
    python benchmarks/shift_table.py runs/shift --reference fresh_33
    python benchmarks/shift_table.py benchmarks/results/shift.json benchmarks/results/shift_second_seed.json
    python benchmarks/shift_table.py runs/shift_seeds --rows warm meta_up --worlds 0 1 2

A difference is the mean over worlds with Student's 95 % interval, of several seeds of a world their mean; one whose
interval holds zero cannot be told. The baseline is the mean over the orders of pairs that it was trained in there,
where `voter_2` and so on were run. Rows that were not run in every world are compared over those that they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.analysis.paired import Difference, paired_difference, runs_needed

Row = dict[str, Any]
Figure = Callable[[Row], float]
OTHER_SEEDS = ("voter_2", "voter_3", "voter_4", "voter_5")
"""The baseline in four other orders of the pairs: how much of a difference is a lucky or an unlucky baseline."""
SIZES = ("4", "16", "64")
"""n of the policies that say the best of n."""
FIGURES: dict[str, tuple[Figure, float]] = {
    "clean pairs": (lambda row: row["clean"], 0.02),
    "rank correlation, policy of 16": (lambda row: row["policy_16"]["gold_correlation"], 0.1),
    "rank correlation, policy of 64": (lambda row: row["policy_64"]["gold_correlation"], 0.1),
    "gold of its best of 64": (lambda row: row["gold"]["64"], 0.1),
    "gold at its own best n": (lambda row: max(row["gold"][n] for n in SIZES), 0.1),
}
"""Name -> where it lies in a row, and the difference that the number of runs is told for."""
GAPS = {"up to .5": "0", ".5 to 1": "0.5", "1 to 2": "1", "above 2": "2"}


def read(place: Path, name: str) -> dict[str, dict[str, Row]]:
    """Row -> world and seed -> figures, of a folder of runs or of the JSON file that was written of one."""
    if place.is_file():
        return json.loads(place.read_text(encoding="utf-8"))[{"rows": "runs"}.get(name, name)]
    found: dict[str, dict[str, Row]] = {}
    for path in sorted(place.glob(f"*/{name}.json")):
        for row, figures in json.loads(path.read_text(encoding="utf-8"))["rows"].items():
            found.setdefault(row, {})[path.parent.name] = figures
    return found


def read_all(
    places: Sequence[Path], name: str, only: Collection[str] = (), worlds: Collection[int] = ()
) -> dict[str, dict[str, Row]]:
    """The same of several places, no two of which have the same world and seed of a row.

    Args:
        places: folders and files.
        name: `rows` or `rounds`.
        only: rows to keep beside the baseline, in all its orders; none for all.
        worlds: to keep; none for all.
    """
    found: dict[str, dict[str, Row]] = {}
    for place in places:
        for row, runs in read(place, name).items():
            if twice := found.get(row, {}).keys() & runs.keys():
                raise SystemExit(f"{place}: {row} of {', '.join(sorted(twice))} is in another place too")
            found.setdefault(row, {}).update(runs)
    named = ("baseline", *OTHER_SEEDS, *only) if only else found
    kept = {
        row: {key: runs[key] for key in runs if not worlds or world_of(key) in worlds}
        for row, runs in found.items()
        if row in named
    }
    return {row: runs for row, runs in kept.items() if runs}


def world_of(key: str) -> int:
    return int(key.partition("-")[0])


def against(rows: dict[str, dict[str, Row]], name: str, figure: Figure, reference: str) -> Difference | None:
    """A row less its world's reference; the baseline is the mean over the orders of pairs that it was trained in."""
    orders = (reference, *OTHER_SEEDS) if reference == "baseline" else (reference,)
    same = [rows[one] for one in orders if one in rows]
    of_world: dict[int, list[float]] = {}
    for key, row in rows[name].items():
        if others := [figure(runs[key]) for runs in same if key in runs]:
            of_world.setdefault(world_of(key), []).append(figure(row) - float(np.mean(others)))
    less = {world: float(np.mean(differences)) for world, differences in of_world.items()}
    return paired_difference(less, dict.fromkeys(less, 0.0))


def mean(rows: dict[str, Row], figure: Figure) -> str:
    values = [figure(row) for row in rows.values()]
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def paired(found: Difference | None) -> str:
    if found is None:
        return ""
    return f"**{found.text}**" if found.verdict in ("higher", "lower") else found.text


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def tables(rows: dict[str, dict[str, Row]], reference: str = "baseline") -> list[str]:
    """Values, differences, accuracy by the distance in gold, and gold as n grows."""
    lines = [line("row", "runs", *FIGURES), line(*["---"] * (2 + len(FIGURES)))]
    lines += [line(n, str(len(r)), *(mean(r, figure) for figure, _ in FIGURES.values())) for n, r in rows.items()]
    lines += ["", line(f"less {reference}", "runs", *FIGURES), line(*["---"] * (2 + len(FIGURES)))]
    for name in rows:
        if name == reference or name in OTHER_SEEDS:
            continue
        found = [against(rows, name, figure, reference) for figure, _ in FIGURES.values()]
        lines.append(line(name, str(found[0].num if found[0] else 0), *map(paired, found)))
    lines += ["", *of_sizes(rows, reference)]
    lines += ["", line("row", *(f"gap {gap}" for gap in GAPS), "difference of rewards, of 64", "its own policy")]
    lines += [line(*["---"] * (3 + len(GAPS)))]
    for name, runs in rows.items():
        by_gap = [accuracy(runs, low) for low in GAPS.values()]
        distance = mean(runs, lambda row: row["policy_64"]["difference"])
        lines.append(line(name, *by_gap, distance, mean(runs, lambda row: row["own"]["gold_correlation"])))
    lines += ["", line("row", *(f"{what} at n = {n}" for what in ("gold", "proxy") for n in (1, 4, 16, 64)))]
    lines += [line(*["---"] * 9)]
    for name, runs in rows.items():
        every = [(what, str(n)) for what in ("gold", "proxy") for n in (1, 4, 16, 64)]
        lines.append(line(name, *(f"{np.mean([row[what][n] for row in runs.values()]):.2f}" for what, n in every)))
    compared = [name for name in rows if name != reference and name not in OTHER_SEEDS]
    lines += ["", "Runs that a difference needs, at the spread of differences seen:", ""]
    for what, (figure, size) in FIGURES.items():
        spreads = [d.spread for name in compared if (d := against(rows, name, figure, reference))]
        needed = [number for spread in spreads if (number := runs_needed(spread, size))]
        if needed:
            lines.append(
                f"- {what}, {size:g}: {int(np.median(needed))} (median over rows; {min(needed)} to {max(needed)})"
            )
    return lines


def of_sizes(rows: dict[str, dict[str, Row]], reference: str) -> list[str]:
    """Gold less the reference's at each n, and what the best of 64 is worth less than the row's own best n."""
    best = FIGURES["gold at its own best n"][0]
    golds = [*(partial(gold_at, n) for n in SIZES), best]
    heads = (f"gold less {reference}", "runs", *(f"n = {n}" for n in SIZES), "at its own best n", "best n", "regret")
    lines = [line(*heads), line(*["---"] * len(heads))]
    for name, runs in rows.items():
        if name not in (reference, *OTHER_SEEDS):
            at = {n: float(np.mean([row["gold"][n] for row in runs.values()])) for n in SIZES}
            regret = float(np.mean([best(row) - row["gold"]["64"] for row in runs.values()]))
            found = [against(rows, name, gold, reference) for gold in golds]
            num = str(found[0].num if found[0] else 0)
            lines.append(line(name, num, *map(paired, found), max(at, key=lambda n: at[n]), f"{regret:.2f}"))
    return lines


def gold_at(n: str, row: Row) -> float:
    return row["gold"][n]


def accuracy(runs: dict[str, Row], low: str) -> str:
    """Over all pairs of the policy of 64 that are so far apart in gold."""
    counted = [
        (row["policy_64"][f"pairs_above_{low}"], row["policy_64"].get(f"accuracy_above_{low}", 0.0))
        for row in runs.values()
    ]
    total = sum(number for number, _ in counted)
    return f"{sum(number * value for number, value in counted) / total:.3f}" if total else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", help="folders of runs, or JSON files that were written of them")
    parser.add_argument("--reference", default="baseline", help="the row that others are held against")
    parser.add_argument("--rows", nargs="+", default=(), help="rows to take beside the baseline; all unless given")
    parser.add_argument("--worlds", type=int, nargs="+", default=(), help="worlds to take; all unless given")
    parser.add_argument("--out", type=Path, help="one JSON file of all that was measured")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "rows": read_all(arguments.places, "rows", arguments.rows, arguments.worlds),
        "rounds": read_all(arguments.places, "rounds", worlds=arguments.worlds),
    }
    if not results["rows"]:
        told = ", ".join(map(str, arguments.places))
        raise SystemExit(f"{told}: no WORLD-SEED/rows.json; shift.py writes them")
    print("\n".join(tables(results["rows"], arguments.reference)))
    if results["rounds"]:
        rounds = results["rounds"]
        print("\nOver rounds, each on the policy of its own latest model:\n")
        print(line("row", "runs", "rank correlation, policy of 64", "gold of its best of 64"))
        print(line(*["---"] * 4))
        for name, runs in rounds.items():
            figures = [FIGURES[what][0] for what in ("rank correlation, policy of 64", "gold of its best of 64")]
            print(line(name, str(len(runs)), *(mean(runs, figure) for figure in figures)))
    if arguments.out:
        if len(arguments.places) > 1 or arguments.places[0].is_file():
            raise SystemExit("--out is of one folder of runs")
        first = json.loads(next(arguments.places[0].glob("*/rows.json")).read_text(encoding="utf-8"))
        kept = {name: first[name] for name in ("machine", "threads", "versions", "date", "settings")}
        arguments.out.write_text(
            json.dumps({**kept, "runs": results["rows"], "rounds": results["rounds"]}, indent=1) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
