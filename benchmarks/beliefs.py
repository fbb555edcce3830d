"""Where voters know that a label is wrong: the weakest tenth of the pairs against all other negative strengths.

    python benchmarks/beliefs.py runs/shift --worlds 0 1 --out benchmarks/results/beliefs.json

Voters are those of `shift.py`, in its folder, trained if they are not there. It counts labels of the pairs that they
were trained on, and knows what they are worth: the made world is known.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from common import origin
from paper_parts.world import Settings, World, ensemble, judge_of

from lightning_rm.strength.votes import quantiles


def counted(world: World) -> dict[str, Any]:
    """Shares of labels that are wrong before and after flips, and the voters' accuracy on clean pairs."""
    pairs = world.annotated()
    mean = np.array([pair.strength_mean for pair in pairs], np.float64)
    wrong = np.array([not pair.clean for pair in pairs])
    weakest, negative = quantiles(mean) < 0.1, mean < 0
    others = negative & ~weakest
    zero = [world.encode(pair.prompt, pair.chosen) for pair in world.pairs[:500]]
    return {
        "wrong": float(wrong.mean()),
        "wrong_in_weakest_tenth": float(wrong[weakest].mean()),
        "other_negative": float(others.mean()),
        "wrong_in_other_negative": float(wrong[others].mean()),
        "wrong_after_tenth": float((wrong ^ weakest).mean()),
        "wrong_after_negative": float((wrong ^ negative).mean()),
        "voters": [world.accuracy(judge_of(voter)) for voter in world.voters()],
        "mean_of_voters": world.accuracy(ensemble(world.voters(), "mean", zero)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", default="runs/sft/model/last", help="the SFT model that all begin from")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/beliefs.json"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    settings = Settings(arguments.start)
    results: dict[str, Any] = {**origin(torch, L), "worlds": {}}
    for number in arguments.worlds:
        world = World(settings, arguments.folder / f"{number}-{arguments.seed}", number, arguments.seed)
        results["worlds"][str(number)] = counted(world)
        print(number, json.dumps(results["worlds"][str(number)]))
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
