"""What curation is worth on the made world: clean accuracy on raw and on curated labels, cost, estimate of noise.

    lightning-rm train experiment=sft data.module.val=null data.module.test=null data.val_fraction=0 logger=csv
    python benchmarks/curation.py --worlds 0 1 2 3 4 --out benchmarks/results/curation.json
    python benchmarks/curation.py --table benchmarks/results/curation.json

Every world has pairs, voters and a test set of clean labels of its own. Ten heads on one backbone vote, trained for as
many epochs as what is measured; then one model is trained on the labels as they are, one on those of each policy, one
on `flip_weakest` after an oracle has reviewed the 200 pairs that the voters dispute most, and one on the true labels,
which is the most that there is to gain. Differences are paired by world. The cost of curation is the processor time of
training the voters, their votes and the decisions with their report, over that of one training on the raw labels; both
begin at the file of pairs, and neither finds anything tokenised. `--ways raw` trains on raw labels alone, for the cost
and the estimate.

`--noises` adds worlds of other shares of wrong labels for the estimate alone. Planted are the labels that are turned
round whatever the pair; the annotator's own mistakes on close pairs come on top, and both are given.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import transformers
from common import origin
from fitting import fit

from lightning_rm.analysis.paired import paired_difference
from lightning_rm.annotation.reviews import Review, append_review
from lightning_rm.annotation.voters import Voter
from lightning_rm.curation.curate import curate
from lightning_rm.curation.result import Curated, Rules
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sets import AnySource
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import warmup_schedule
from lightning_rm.modules.voters import VotersRM
from lightning_rm.strength.policies import PolicyName

HELD_OUT = 0.1
POLICIES: tuple[PolicyName, ...] = ("flip_weakest", "agreement", "soft", "drop")
WAYS = (*POLICIES, "reviewed", "truth")


class World:
    """One made world and what is trained in it."""

    def __init__(self, arguments: argparse.Namespace, seed: int, noise: float, folder: Path) -> None:
        self.arguments, self.seed, self.folder = arguments, seed, folder
        self.rows = list(SyntheticSource(arguments.pairs, noise=noise, seed=seed))
        shutil.rmtree(folder, ignore_errors=True)  # nothing of an earlier run is found ready
        folder.mkdir(parents=True)
        names = ("prompt", "chosen", "rejected", "id", "prompt_id", "subset", "gold_margin", "clean")
        lines = (json.dumps({name: getattr(row, name) for name in names}) + "\n" for row in self.rows)
        (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
        self.pairs = FileSource(folder / "pairs.jsonl")
        self.test = SyntheticSource(arguments.test_pairs, split="test", clean_labels=True, seed=seed)
        self.tokenizer = load_tokenizer(arguments.start)
        self.optimizer = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01)
        self.scheduler = partial(warmup_schedule, name="linear", warmup=0.1)

    def data(self, train: AnySource, cache: str = "cache", **options: Any) -> PreferenceDataModule:
        return PreferenceDataModule(
            self.tokenizer, train=train, max_tokens=256, batch_pairs=32, cache_dir=self.folder / cache, **options
        )

    def votes(self) -> tuple[list[Voter], float]:
        """Ten heads on one backbone, and the processor seconds of their training."""
        model = RewardModel.from_pretrained(self.arguments.start, tokenizer=self.tokenizer, new_head=True, head_seed=0)
        module = VotersRM(MemberRewardModel.of(model), self.optimizer, self.scheduler)
        seconds = fit(module, self.data(self.pairs, val_fraction=HELD_OUT), self.arguments.epochs)
        module.model.save_pretrained(self.folder / "voters", self.tokenizer)
        return [Voter("heads", self.folder / "voters")], seconds

    def curated(self, voters: list[Voter], rules: Rules) -> tuple[Curated, float]:
        start = time.process_time()
        found = curate(
            self.pairs, voters, self.folder / rules.policy, rules, held_out=HELD_OUT, cache_dir=self.folder / "cache"
        )
        assert found is not None
        return found, time.process_time() - start

    def accuracy(self, train: AnySource, cache: str = "cache") -> tuple[float, float]:
        """Of a model trained on these pairs, on clean test labels; and its processor seconds."""
        model = RewardModel.from_pretrained(self.arguments.start, tokenizer=self.tokenizer, new_head=True, head_seed=0)
        module = BaselineRM(model, self.optimizer, self.scheduler)
        data = self.data(train, cache, test=self.test)
        seconds = fit(module, data, self.arguments.epochs)
        tester = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
        (found,) = tester.test(module, data, verbose=False)
        return float(found["test/accuracy"]), seconds

    def review(self, curated: Curated, num: int) -> Path:
        """What an oracle says of the pairs whose voters disagree most: the truth."""
        path = self.folder / "reviews.jsonl"
        path.unlink(missing_ok=True)
        strength = curated.votes.strength
        disputed = np.argsort(np.abs(strength.mean) / strength.std, kind="stable")[:num]
        row_of = curated.votes.pairs.source_row
        clean = {number: (row.id, row.clean) for number, row in enumerate(self.rows)}
        for place in disputed.tolist():
            name, is_right = clean[int(row_of[place])]
            append_review(path, Review(name, "keep" if is_right else "flip", reviewer="oracle"))
        return path


def estimate(curated: Curated, noise: float, rows: list[PairRow]) -> dict[str, Any]:
    wrong = 1 - float(np.mean([bool(row.clean) for row in rows]))
    found = curated.wrong
    return {
        "planted": noise,
        "wrong": round(wrong, 4),
        "estimate": found.share,
        "low": found.low,
        "high": found.high,
        "pairs": found.num_pairs,
        "holds_planted": found.low <= noise <= found.high,
        "holds_wrong": found.low <= wrong <= found.high,
    }


def run_world(arguments: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    world = World(arguments, seed, arguments.noise, folder)
    voters, voting = world.votes()
    first, deciding = world.curated(voters, Rules(POLICIES[0]))
    raw, raw_seconds = world.accuracy(world.pairs, "cache_of_raw")
    accuracies = {"raw": raw}
    decided = {POLICIES[0]: dict(first.counts)}
    for way in arguments.ways:
        if way in POLICIES:
            if way != POLICIES[0]:
                decided[way] = dict(world.curated(voters, Rules(way))[0].counts)
            accuracies[way] = world.accuracy(FileSource(folder / way / "clean.parquet"))[0]
        elif way == "reviewed":
            rules = Rules(POLICIES[0], reviews=world.review(first, arguments.reviews))
            decided[way] = dict(world.curated(voters, rules)[0].counts)
            accuracies[way] = world.accuracy(FileSource(folder / POLICIES[0] / "clean.parquet"))[0]
        elif way == "truth":
            accuracies[way] = world.accuracy(truth(world.rows))[0]
    flips = first.decision == "flipped"
    wrong = np.array([not row.clean for row in world.rows])[first.votes.pairs.source_row]
    return {
        "world": seed,
        "accuracy": accuracies,
        "decisions": decided,
        "flips_right": float(wrong[flips].mean()) if flips.any() else None,
        "share": first.share,
        "seen_and_new": [first.by_heart.seen, first.by_heart.new],
        "seconds": {"voters": voting, "votes and decisions": deciding, "one training": raw_seconds},
        "cost": (voting + deciding) / raw_seconds,
        "noise": estimate(first, arguments.noise, world.rows),
    }


def truth(rows: list[PairRow]) -> list[dict[str, Any]]:
    """The same pairs, every label right."""

    def sides(row: PairRow) -> tuple[Any, Any]:
        return (row.chosen, row.rejected) if row.clean else (row.rejected, row.chosen)

    return [
        {"prompt": list(row.prompt), "chosen": list(sides(row)[0]), "rejected": list(sides(row)[1]), "id": row.id}
        for row in rows
    ]


def differences(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Each way against raw labels, paired by world; reviews against the same policy without."""
    values = {name: {world["world"]: world["accuracy"][name] for world in worlds} for name in worlds[0]["accuracy"]}
    against = {name: (name, "raw") for name in values if name != "raw"}
    if {"reviewed", "flip_weakest"} <= values.keys():
        against["reviewed, over flip_weakest"] = ("reviewed", "flip_weakest")
    found = {name: paired_difference(values[one], values[other]) for name, (one, other) in against.items()}
    return {name: one._asdict() | {"verdict": one.verdict} for name, one in found.items() if one is not None}


def table(results: dict[str, Any]) -> list[str]:
    """The worlds' means in Markdown, beside raw labels with a 95 % interval of the paired difference."""
    worlds = results["worlds"]
    names = {"raw": "the labels as they are", "reviewed": f"`flip_weakest`, {results['settings']['reviews']} reviewed"}
    names |= {"truth": "every label right"} | {name: f"`{name}`" for name in POLICIES}
    lines = [
        f"| {len(worlds)} worlds, trained on | accuracy | over raw labels | 95 % | |",
        "|---|---:|---:|---:|---|",
    ]
    for way in worlds[0]["accuracy"]:
        mean = float(np.mean([world["accuracy"][way] for world in worlds]))
        line = f"| {names[way]} | {mean:.3f} |"
        if way in results["differences"]:
            one = results["differences"][way]
            line += f" {one['mean']:+.3f} | {one['low']:+.3f} to {one['high']:+.3f} | {one['verdict']} |"
        lines.append(line if way in results["differences"] else f"{line} | | |")
    one = results["differences"].get("reviewed, over flip_weakest")
    if one is not None:
        told = f"{one['mean']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f}): {one['verdict']}"
        lines += ["", f"{results['settings']['reviews']} reviews over `flip_weakest` alone: {told}."]
    lines += [
        "",
        "| world | kept, flipped, set aside by `flip_weakest` | `agreement` | flips that are right | estimate |",
    ]
    lines.append("|---|---:|---:|---:|---:|")
    for world in worlds:
        noise = world["noise"]
        counts = [
            ", ".join(f"{world['decisions'][way][name]:,}" for name in ("kept", "flipped", "set aside"))
            for way in ("flip_weakest", "agreement")
            if way in world["decisions"]
        ]
        right = "" if world["flips_right"] is None else f"{world['flips_right']:.0%}"
        found = f"{noise['estimate']:.1%} ({noise['low']:.1%} to {noise['high']:.1%}) of {noise['wrong']:.1%}"
        lines.append(f"| {world['world']} | {' | '.join(counts)} | {right} | {found} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/sft/model/last", help="the SFT model that all begin from")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--test-pairs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.235, help="of labels; 25 %% are wrong then")
    parser.add_argument("--noises", type=float, nargs="*", default=[], help="further ones, for the estimate alone")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=["raw", *WAYS], help="to train on, beside raw")
    parser.add_argument("--reviews", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("runs/curation"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curation.json"))
    parser.add_argument("--table", type=Path, help="a result, to print as Markdown; nothing is run")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print("\n".join(table(json.loads(arguments.table.read_text(encoding="utf-8")))))
        return
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    settings = {
        name: value for name, value in vars(arguments).items() if name not in ("out", "folder", "start", "table")
    }
    results: dict[str, Any] = {**origin(torch, L, transformers), "settings": settings, "worlds": [], "estimates": []}
    jobs = [(arguments.noise, seed) for seed in arguments.worlds]
    jobs += [(noise, seed) for seed in arguments.worlds for noise in arguments.noises]
    for noise, seed in jobs:
        folder = arguments.folder / f"{noise:g}-{seed}"
        if noise == arguments.noise:
            results["worlds"].append(run_world(arguments, seed, folder))
            results["differences"] = differences(results["worlds"])
            results["estimates"].append(results["worlds"][-1]["noise"] | {"world": seed})
        else:
            world = World(arguments, seed, noise, folder)
            curated, _ = world.curated(world.votes()[0], Rules())
            results["estimates"].append(estimate(curated, noise, world.rows) | {"world": seed})
        print(json.dumps(results["worlds"][-1] if noise == arguments.noise else results["estimates"][-1]), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
