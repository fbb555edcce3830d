"""One process of `benchmarks/paper.py`: runs worlds, or writes the page."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from pathlib import Path

import lightning as L
import torch
from common import origin

from lightning_rm.drafts import draft_of
from paper_parts import page
from paper_parts.sizes import SIZES, Size
from paper_parts.stages import stages
from paper_parts.world import Settings, World


def work(folder: Path, size: Size, start: str, place: int, num: int) -> None:
    """Every `num`-th world from `place` on, stage by stage; what is done already is not done again."""
    chosen = Settings(start, size.pairs, size.epochs, voters=size.voters, test_pairs=size.test_pairs)
    for number in range(place, size.worlds, num):
        world = World(chosen, folder / "worlds" / str(number), number, 0)
        for name, stage in stages(size).items():
            path = world.folder / "stages" / f"{name}.json"
            if path.exists():
                continue
            begun = time.process_time()
            found = stage(world, size)
            with draft_of(path) as draft:
                draft.write_text(json.dumps(found) + "\n", encoding="utf-8")
            print(f"world {number}: {name}, {time.process_time() - begun:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["work", "page"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--start", default="")
    parser.add_argument("--place", type=int, default=0)
    parser.add_argument("--num", type=int, default=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    torch.set_num_threads(1)
    size = SIZES[arguments.size]
    if arguments.part == "work":
        work(arguments.out, size, arguments.start, arguments.place, arguments.num)
    elif arguments.part == "page":
        about = {name: value for name, value in origin(torch, L).items() if name != "command"}
        for path in page.write(arguments.out, arguments.size, {**vars(size), **about})[:2]:
            print(path)


if __name__ == "__main__":
    main()
