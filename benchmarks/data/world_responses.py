"""Responses of the made world's policy with what voters say of them, for `module.agreed_only=true`.

    python benchmarks/data/world_responses.py 'runs/vote_0/*' --world-seed 0 --shift 1 --out responses_0.jsonl

A line a prompt, as `lightning-rm sample voters=...` writes them: `prompt`, `responses`, `votes` (k lists of M rewards).
The prompts and responses are those of `responses=synthetic` with the same seed and shift.
"""

from __future__ import annotations

import argparse
import glob
import json
from pathlib import Path

import torch

from lightning_rm.annotation.voters import Voter
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.load import find_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voters", help="a glob of runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--world-seed", type=int, default=0)
    parser.add_argument("--shift", type=float, default=1.0)
    parser.add_argument("--num-prompts", type=int, default=2000)
    parser.add_argument("--k", type=int, default=5)
    arguments = parser.parse_args()
    folders = [folder for run in sorted(glob.glob(arguments.voters)) if (folder := find_folder(Path(run)))]
    if not folders:
        raise SystemExit(f"{arguments.voters} names no run with weights")
    groups = list(SyntheticGroups(arguments.num_prompts, arguments.k, shift=arguments.shift, seed=arguments.world_seed))
    conversations = [[*group.prompt, *response] for group in groups for response in group.responses]
    tokenizer = Voter("first", folders[0]).tokenizer()
    votes = [score(Voter(str(folder), folder).load(tokenizer), tokenizer, conversations) for folder in folders]
    rewards = torch.stack(votes, dim=-1).view(len(groups), arguments.k, len(folders))
    ordered = (rewards[:, :, None] > rewards[:, None, :]).all(-1).sum((1, 2)) / (arguments.k * (arguments.k - 1) / 2)
    with arguments.out.open("w", encoding="utf-8") as file:
        for group, own in zip(groups, rewards.tolist(), strict=True):
            responses = [response[-1]["content"] for response in group.responses]
            row = {"id": group.id, "prompt": group.prompt, "responses": responses, "votes": own}
            file.write(json.dumps(row) + "\n")
    print(f"{len(groups):,} prompts; {len(folders)} voters agree on {ordered.mean():.1%} of all pairs of responses")


if __name__ == "__main__":
    main()
