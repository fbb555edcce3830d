"""One process of `benchmarks/paper.py`: runs worlds, or writes the page."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from common import origin
from filelock import FileLock, Timeout

from lightning_rm.drafts import draft_of
from paper_parts import page
from paper_parts.sizes import SIZES, Size
from paper_parts.stages import stages
from paper_parts.world import Settings, World


def work(folder: Path, size: Size, start: str, place: int, num: int) -> None:
    """Every `num`-th world from `place` on, stage by stage, and then what no other process does of the others' worlds.

    What is done already is not done again.
    """
    own = range(place, size.worlds, num)
    chosen = Settings(start, size.pairs, size.epochs, voters=size.voters, test_pairs=size.test_pairs)
    for number in sorted(range(size.worlds), key=lambda number: number not in own):
        world = World(chosen, folder / "worlds" / str(number), number, 0, turn=place * size.voters // num)
        for name, stage in stages(size).items():
            path = world.folder / "stages" / f"{name}.json"
            with alone(path) as is_first:
                if not is_first or path.exists():
                    continue
                begun = time.process_time()
                found = stage(world, size)
                with draft_of(path) as draft:
                    draft.write_text(json.dumps(found) + "\n", encoding="utf-8")
            print(f"world {number}: {name}, {time.process_time() - begun:.0f} s", flush=True)


@contextmanager
def alone(path: Path) -> Generator[bool]:
    """Tell whether no other process makes a file; within the block none begins to. A killed process leaves no lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        yield False
    else:
        with held:
            yield True


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
