"""How often the estimate of wrong labels holds the truth, on made worlds: voters once, asked about many sets of pairs.

    lightning-rm train experiment=sft data.module.val=null data.module.test=null data.val_fraction=0 logger=csv
    python benchmarks/noise_estimate.py --out benchmarks/results/noise_estimate.json
    python benchmarks/noise_estimate.py --made --out benchmarks/results/noise_estimate_made.json

For every world and share of labels that are turned round, ten heads on one backbone are trained as `curate` trains
them. They then vote on sets of pairs of that world that they were not trained on, and each set gives an estimate with
its interval. Two truths are held against it: the planted share, and the share that is wrong in that set, in which the
annotator's own mistakes on close pairs are counted too. Sets of one world share their voters, so they are not
independent worlds.

`--made` draws votes instead, many worlds of them: of a voter that is right with probability `sigmoid(1.7 |vote|)`, as
the estimate assumes, and of one that is not, since its largest votes are wrong in 5 % of the cases.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import transformers
from common import origin
from curation import World
from numpy.typing import NDArray

from lightning_rm.analysis.noise import wrong_labels
from lightning_rm.annotation.votes import collect_votes
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.tokenize.policy import TokenizePolicy


def estimates(arguments: argparse.Namespace, seed: int, noise: float, folder: Path) -> dict[str, Any]:
    world = World(arguments, seed, noise, folder)
    voters, _ = world.votes()
    fresh = SyntheticSource(arguments.sets * arguments.size, split="val", noise=noise, seed=seed)
    clean = np.array([row.clean for row in fresh])
    votes = collect_votes(fresh, voters, folder / "fresh", TokenizePolicy(), cache_dir=folder / "cache")
    mean, row = votes.strength.mean, votes.pairs.source_row
    np.savez(folder / "fresh.npz", mean=mean, clean=clean[row])
    found: list[dict[str, Any]] = []
    for number in range(arguments.sets):
        inside = row // arguments.size == number
        one, wrong = wrong_labels(mean[inside]), float(1 - clean[row][inside].mean())
        found.append(
            {
                **{name: round(value, 4) for name, value in one._asdict().items()},
                "wrong": round(wrong, 4),
                "holds_planted": one.low <= noise <= one.high,
                "holds_wrong": one.low <= wrong <= one.high,
                "is_told": one.is_told,
            }
        )
    right = float(((mean > 0) == clean[row]).mean())
    return {"world": seed, "planted": noise, "voters_right": right, "sets": found}


def summary(worlds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the sets of all worlds, for each planted share; and in how many worlds nine of ten sets hold it."""
    rows: list[dict[str, Any]] = []
    for noise in sorted({world["planted"] for world in worlds}):
        those = [world for world in worlds if world["planted"] == noise]
        sets = [one for world in those for one in world["sets"]]
        rows.append(
            {
                "planted": noise,
                "worlds": len(those),
                "sets": len(sets),
                "estimate": round(float(np.mean([one["share"] for one in sets])), 4),
                "width": round(float(np.mean([one["high"] - one["low"] for one in sets])), 4),
                "wrong": round(float(np.mean([one["wrong"] for one in sets])), 4),
                **{
                    name: round(float(np.mean([one[name] for one in sets])), 4)
                    for name in ("holds_planted", "holds_wrong", "is_told")
                },
                "worst_world": min(float(np.mean([one["holds_planted"] for one in world["sets"]])) for world in those),
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The summary in Markdown."""
    heading = (
        "| planted | worlds, sets | hold it | in the worst world | hold the share that is wrong in all | mean estimate "
        "| mean width | told |"
    )
    lines = [
        f"| {row['planted']:.0%} | {row['worlds']}, {row['sets']} | {row['holds_planted']:.0%} "
        f"| {row['worst_world']:.0%} | {row['holds_wrong']:.0%} (of {row['wrong']:.1%}) | {row['estimate']:.1%} "
        f"| {row['width']:.2f} | {row['is_told']:.0%} |"
        for row in rows
    ]
    return [heading, "|---:|---:|---:|---:|---:|---:|---:|---:|", *lines]


def made(noise: float, num_pairs: int, best: float, seed: int) -> NDArray[np.float64]:
    """(N,) votes towards the label, of a voter that is right with probability `best` where it is surest."""
    draw = np.random.default_rng(seed)
    size = np.abs(draw.normal(0, 1, num_pairs))
    right = 0.5 + (2 * best - 1) * (1 / (1 + np.exp(-1.7 * size)) - 0.5)
    agrees = (draw.random(num_pairs) < right) != (draw.random(num_pairs) < noise)
    return np.where(agrees, size, -size)


def made_summary(noises: Sequence[float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for best in (1.0, 0.95):
        for num_pairs, worlds in ((600, 100), (6000, 40)):
            for noise in noises:
                found = [wrong_labels(made(noise, num_pairs, best, seed)) for seed in range(worlds)]
                holds = np.array([one.low <= noise <= one.high for one in found])
                told = np.array([one.is_told for one in found])
                rows.append(
                    {
                        "best": best,
                        "pairs": num_pairs,
                        "worlds": worlds,
                        "planted": noise,
                        "estimate": round(float(np.mean([one.share for one in found])), 4),
                        "width": round(float(np.mean([one.high - one.low for one in found])), 4),
                        "holds": round(float(holds.mean()), 4),
                        "told": round(float(told.mean()), 4),
                        "told_holds": round(float(holds[told].mean()), 4) if told.any() else None,
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/sft/model/last", help="the SFT model that all begin from")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--noises", type=float, nargs="+", default=[0.05, 0.15, 0.25, 0.35])
    parser.add_argument("--pairs", type=int, default=3000, help="of which nine tenths train the voters")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--size", type=int, default=600, help="pairs of a set")
    parser.add_argument("--folder", type=Path, default=Path("runs/noise_estimate"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/noise_estimate.json"))
    parser.add_argument("--made", action="store_true", help="made votes; nothing is trained")
    parser.add_argument("--table", type=Path, help="a result, to print as Markdown; nothing is run")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print("\n".join(table(json.loads(arguments.table.read_text(encoding="utf-8"))["summary"])))
        return
    if arguments.made:
        results = {**origin(np), "rows": made_summary(arguments.noises)}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        return
    arguments.test_pairs = 1  # of World: nothing is tested here
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    names = ("worlds", "noises", "pairs", "epochs", "sets", "size")
    settings = {name: getattr(arguments, name) for name in names}
    results: dict[str, Any] = {**origin(torch, L, transformers), "settings": settings, "worlds": []}
    for seed in arguments.worlds:
        for noise in arguments.noises:
            found = estimates(arguments, seed, noise, arguments.folder / f"{noise:g}-{seed}")
            results["worlds"].append(found)
            results["summary"] = summary(results["worlds"])
            print(json.dumps({name: value for name, value in found.items() if name != "sets"}), flush=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
