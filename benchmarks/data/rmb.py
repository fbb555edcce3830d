"""RMB's pairs, split by prompt: helpful and harmless, long, labelled by GPT-4.

    git clone https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark
    python benchmarks/data/rmb.py RMB-Reward-Model-Benchmark OUT_FOLDER

Source: Zhou et al., "RMB: Comprehensively Benchmarking Reward Models in LLM Alignment", ICLR 2025 (arXiv 2410.09893),
commit 2be3180 (no licence stated). A model that is trained on these pairs is no longer measured by that benchmark.

Reads `RMB_dataset/Pairwise_set` but for the three categories in `UNUSED` and writes, in the order of the source:

- `train.jsonl`, 11,548 pairs;
- `val.jsonl`, 2,953 pairs of every fifth prompt.

Of 14,543 pairs 11 have one response twice, 2 an empty one, and 29 repeat an earlier pair in either order; they are left
out, which leaves 14,501. Each line also has `subset` (helpful or harmless), `category`, `chosen_model` and
`rejected_model`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonl import Pair, message, prompt_id, write

UNUSED = (
    "Harmlessness/S11",
    "Helpfulness/Brainstorming/Idea Development",
    "Helpfulness/Generation/Creative Writing",
)
DIGEST = {"train": "97ebfacb297f10b3", "val": "a9eabf2e31a51fd6"}


def read_pairs(clone: Path) -> Iterator[Pair]:
    """The pairs of all files without `id`, repeats included."""
    folder = clone / "RMB_dataset" / "Pairwise_set"
    names = {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.json")}
    if not names:
        raise SystemExit(f"{folder} has no .json file: is {clone} a clone of RMB-Reward-Model-Benchmark?")
    for name in sorted(names.keys() - set(UNUSED)):
        for row in json.loads(names[name].read_text(encoding="utf-8")):
            yield pair_of(row, name)


def pair_of(row: Mapping[str, Any], category: str) -> Pair:
    prompt = [message(turn["role"], turn["content"]) for turn in row["conversation_input"]]
    return {
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "chosen": row["chosen"]["answer"],
        "rejected": row["reject"]["answer"],
        "subset": "helpful" if category.startswith("Helpfulness") else "harmless",
        "category": category,
        "chosen_model": row["chosen"]["llm_name"],
        "rejected_model": row["reject"]["llm_name"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone of Zhou-Zoey/RMB-Reward-Model-Benchmark")
    parser.add_argument("out", type=Path, help="folder to write train.jsonl and val.jsonl to")
    arguments = parser.parse_args()
    first: dict[object, Pair] = {}
    for pair in read_pairs(arguments.clone):
        if pair["chosen"] != pair["rejected"] and all(str(pair[side]).strip() for side in ("chosen", "rejected")):
            first.setdefault((pair["prompt_id"], frozenset((pair["chosen"], pair["rejected"]))), pair)
    place = {name: number for number, name in enumerate(dict.fromkeys(pair["prompt_id"] for pair in first.values()))}
    split: dict[str, list[Pair]] = {"train": [], "val": []}
    for number, pair in enumerate(first.values()):
        held_out = place[pair["prompt_id"]] % 5 == 0
        split["val" if held_out else "train"].append({"id": f"rmb-{number:05d}", **pair})
    for name, pairs in split.items():
        write(arguments.out / f"{name}.jsonl", pairs, DIGEST[name])


if __name__ == "__main__":
    main()
