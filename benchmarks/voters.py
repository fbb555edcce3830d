"""What ten voters on one backbone cost beside ten single runs, in training and in scoring, in one run.

    python benchmarks/voters.py --out benchmarks/results/voters.json

Members are trained by `VotersRM`, single models by `BaselineRM`, all by Lightning's trainer on the same batches of a
`PreferenceDataModule`, with one optimizer, in float32. Heads of their own on a trained backbone stand beside full
single models; adapters on the last n layers of a frozen backbone beside single models with LoRA of the same rank on the
same layers. The ten runs are ten times a single one, which takes its turn like all others; `--singles 10` makes ten.

Scoring is `collect_votes`, as the annotate command calls it: one call for the members, and for single models one call
each, or `together`, one call with ten whole checkpoints. A single model's adapters are merged when it is exported, so
all single checkpoints score alike. `training` is of steps but the first, `scoring` of batches but each model's first,
and `scoring whole` of whole calls, loading and all; tokenised pairs are in the cache already.

Methods take turns, a block each, so that a machine busy with other things disturbs all alike; processor time is the
main figure. Ratios are of medians, to M single ones; their quartiles are over the rounds, each block beside that of the
same round. Operations are those of matrix products and attention, counted: what the ratio would be if all else were
free.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import random
import tempfile
import time
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import transformers
from common import backbone, origin, rotated
from peft.tuners.lora import LoraLayer
from torch.utils.flop_counter import FlopCounterMode

from lightning_rm.annotation.voters import Voter
from lightning_rm.annotation.votes import collect_votes
from lightning_rm.batch import PreferenceBatch, Reading
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.scoring.parts import remove_parts

SEED, VOCABULARY_SIZE, RANK, ALPHA = 0, 8000, 8, 16.0
WORDS = (45, 75)  # of a prompt and of a response, a token each
TARGET = 0.5
ADAMW = partial(torch.optim.AdamW, lr=1e-5, weight_decay=0.01)
CLOCKS = ("cpu", "wall")

Seconds = tuple[float, float]
"""Processor time and the clock."""


def now() -> Seconds:
    return time.process_time(), time.perf_counter()


def between(start: Seconds, end: Seconds) -> Seconds:
    return end[0] - start[0], end[1] - start[1]


def total(parts: Iterable[Seconds], times: float = 1.0) -> Seconds:
    cpu, wall = zip(*parts, strict=True)
    return times * sum(cpu), times * sum(wall)


def write_pairs(path: Path, num_pairs: int) -> Path:
    """JSONL of pairs of random words."""
    draw = random.Random(SEED)

    def text() -> str:
        return " ".join(draw.choices(VOCABULARY, k=draw.randint(*WORDS)))

    rows = ({"prompt": text(), "chosen": text(), "rejected": text()} for _ in range(num_pairs))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def single(config: dict[str, Any], seed: int, lora_layers: int = 0) -> RewardModel:
    """A model of its own; with LoRA on every linear layer of the last n layers, like that of members."""
    lora = LoraAdapter(rank=RANK, alpha=ALPHA, seed=seed) if lora_layers else None
    model = RewardModel.from_config(
        config, tokenizer=world_tokenizer(), vocab_size=VOCABULARY_SIZE, seed=seed, lora=lora
    )
    for layer in transformer_layers(model.backbone)[:-lora_layers] if lora_layers else []:
        for name, module in list(layer.named_modules()):
            if isinstance(module, LoraLayer):
                layer.set_submodule(name, module.base_layer)
    return model


def of_members(config: dict[str, Any], num_members: int, lora_layers: int = 0) -> MemberRewardModel:
    members = Members(num_members, lora_layers=lora_layers, rank=RANK, alpha=ALPHA, seed=SEED)
    return MemberRewardModel.from_config(
        config, tokenizer=world_tokenizer(), vocab_size=VOCABULARY_SIZE, seed=SEED, members=members
    )


class Times(L.Callback):
    """Both clocks at the end of every step."""

    def __init__(self) -> None:
        self.ends: list[Seconds] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.ends.append(now())


def train(module: PairwiseRM, data: PreferenceDataModule) -> Seconds:
    """One epoch from the end of its first step."""
    times = Times()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        gradient_clip_val=1.0,
        log_every_n_steps=10**9,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[times],
    )
    gc.collect()
    trainer.fit(module, datamodule=data)
    return between(times.ends[0], times.ends[-1])


def score(folders: list[Path], pairs: Path, batch_tokens: int) -> tuple[Seconds, Seconds]:
    """One call of `collect_votes` with the models in folders: of it the batches but each model's first, and all."""
    ends: dict[str, list[Seconds]] = {folder.name: [] for folder in folders}
    parts = pairs.with_suffix(".parts")
    gc.collect()
    start = now()
    collect_votes(
        FileSource(pairs),
        [Voter(folder.name, folder) for folder in folders],
        parts,
        TokenizePolicy(),
        cache_dir=pairs.parent,
        batch_tokens=batch_tokens,
        progress=lambda name, *_: ends[name].append(now()),
    )
    whole = between(start, now())
    remove_parts(parts)
    return total(between(steps[0], steps[-1]) for steps in ends.values()), whole


class Blocks:
    """Every method's block: phase -> seconds, those of single models times M over the number that was run.

    Args:
        arguments: of the command line.
        folder: for pairs and checkpoints.
    """

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.num_members, self.batch_tokens = arguments.members, arguments.batch_tokens
        self.times = arguments.members / arguments.singles
        config = backbone(arguments.layers, arguments.width, positions=512, encoder=arguments.encoder)
        self.singles = {"single": [BaselineRM(single(config, seed), ADAMW) for seed in range(arguments.singles)]}
        self.members = {"heads": VotersRM(of_members(config, arguments.members), ADAMW)}
        self.beside = {"heads": "single", "together": "single"}
        for layers in arguments.lora_layers:
            models = (single(config, seed, layers) for seed in range(arguments.singles))
            self.singles[f"single lora {layers}"] = [BaselineRM(model, ADAMW) for model in models]
            self.members[f"lora {layers}"] = VotersRM(of_members(config, arguments.members, layers), ADAMW)
            self.beside[f"lora {layers}"] = f"single lora {layers}"
        self.data = PreferenceDataModule(
            world_tokenizer(),
            write_pairs(folder / "train.jsonl", (arguments.steps + 1) * arguments.pairs),
            reading=Reading(self.singles["single"][0].model.read_at),
            batch_pairs=arguments.pairs,
            cache_dir=folder,
        )
        self.scored = write_pairs(folder / "score.jsonl", arguments.score_pairs)
        self.checkpoints = [folder / f"single_{seed}" for seed in range(arguments.members)]
        for seed, path in enumerate(self.checkpoints):
            single(config, seed).save_pretrained(path, world_tokenizer())
        for name, module in self.members.items():
            module.model.save_pretrained(folder / name, world_tokenizer())
        self.folder = folder

    def names(self) -> list[str]:
        """Every method; `together` is of scoring alone."""
        return [*self.singles, *self.members, "together"]

    def run(self, name: str) -> dict[str, Seconds]:
        """A method's block; LoRA's single models score as the full ones do."""
        found: dict[str, Seconds] = {}
        if name in self.singles:
            found["training"] = total((train(module, self.data) for module in self.singles[name]), self.times)
        elif name in self.members:
            found["training"] = train(self.members[name], self.data)
        if name in self.singles and name != "single":
            return found
        folders = {"single": self.checkpoints, "together": self.checkpoints}.get(name, [self.folder / name])
        if name == "single":
            calls = [self.score([path]) for path in folders[: len(self.singles["single"])]]
            steady, whole = (total(seconds, self.times) for seconds in zip(*calls, strict=True))
        else:
            steady, whole = self.score(folders)
        return found | {"scoring": steady, "scoring whole": whole}

    def score(self, folders: list[Path]) -> tuple[Seconds, Seconds]:
        return score(folders, self.scored, self.batch_tokens)

    def operations(self, name: str) -> dict[str, int]:
        """Operations of matrix products and attention on one batch, those of single models times M."""
        if name == "together":
            return {}
        module = self.singles[name][0] if name in self.singles else self.members[name]
        batch: PreferenceBatch = next(iter(self.data.train_dataloader()))
        times = self.num_members if name in self.singles else 1
        with FlopCounterMode(display=False) as counter:
            module.losses(batch, module(batch))["loss"].backward()
        found = {"training": times * counter.get_total_flops()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(batch)
        return found | {"scoring": times * counter.get_total_flops()}


def summary(blocks: Blocks, rounds: list[dict[str, dict[str, Seconds]]]) -> dict[str, Any]:
    """Phase -> method -> seconds, and members' ratios to M single models of their kind and to M full ones."""
    operations = {name: blocks.operations(name) for name in blocks.names()}

    def beside(phase: str, name: str, other: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for place, clock in enumerate(CLOCKS):
            taken, base = (np.array([one[key][phase][place] for one in rounds]) for key in (name, other))
            found[clock] = round(float(np.median(taken) / np.median(base)), 3)
            found[f"{clock}_quartiles"] = quartiles(taken / base, 3)
        if phase in operations[name]:
            found["operations"] = round(operations[name][phase] / operations[other][phase], 3)
        return found

    phases: dict[str, Any] = {}
    for phase in ("training", "scoring", "scoring whole"):
        phases[phase] = {}
        for name in blocks.names():
            if phase not in rounds[0][name]:
                continue
            entry: dict[str, Any] = {}
            for place, clock in enumerate(CLOCKS):
                taken = [one[name][phase][place] for one in rounds]
                entry[f"{clock}_seconds"] = round(float(np.median(taken)), 4)
                entry[f"{clock}_seconds_quartiles"] = quartiles(taken, 4)
            if name in blocks.beside:
                alike = blocks.beside[name] if phase == "training" else "single"
                entry["of_singles"] = beside(phase, name, alike) | ({} if name == "together" else {"target": TARGET})
                entry["of_full_singles"] = beside(phase, name, "single")
            phases[phase][name] = entry
    return phases


def quartiles(values: Any, digits: int) -> list[float]:
    return [round(float(value), digits) for value in np.quantile(values, (0.25, 0.75))]


def report(results: dict[str, Any]) -> None:
    """Print the table: a block's CPU time, those of single models for all M, and ratios."""
    print(
        f"{'':15}{'':15}{'s of CPU':>9}{'ratio':>8}{'quartiles':>16}{'clock':>8}{'quartiles':>16}{'operations':>12}"
        f"{'of full':>9}{'target':>8}"
    )
    for phase, methods in results["phases"].items():
        for name, entry in methods.items():
            line = f"{phase:15}{name:15}{entry['cpu_seconds']:9.2f}"
            if alike := entry.get("of_singles"):
                spans = ["{:.3f} to {:.3f}".format(*alike[f"{clock}_quartiles"]) for clock in CLOCKS]
                counted = f"{alike['operations']:.3f}" if "operations" in alike else ""
                target = f"< {alike['target']}" if "target" in alike else ""
                missed = " missed" if target and alike["cpu"] >= alike["target"] else ""
                line += (
                    f"{alike['cpu']:8.3f}{spans[0]:>16}{alike['wall']:8.3f}{spans[1]:>16}{counted:>12}"
                    f"{entry['of_full_singles']['cpu']:9.3f}{target:>8}{missed}"
                )
            print(line)
    members, singles = results["settings"]["members"], results["settings"]["singles"]
    print(f"Seconds of single models are those of {singles} runs times {members / singles:g}, but of `together`.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", action="store_true", help="a BERT; else a Llama")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--members", type=int, default=10, help="M")
    parser.add_argument("--lora-layers", type=int, nargs="*", default=[1, 4], help="adapted layers, each a method")
    parser.add_argument("--singles", type=int, default=1, help="single runs of a block; M really makes all")
    parser.add_argument("--pairs", type=int, default=16, help="of a batch")
    parser.add_argument("--steps", type=int, default=2, help="timed in a block")
    parser.add_argument("--score-pairs", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of scoring")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each method")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/voters.json"))
    arguments = parser.parse_args()
    if not 1 <= arguments.singles <= arguments.members:
        parser.error(f"--singles {arguments.singles}: give 1 to {arguments.members}")
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    L.seed_everything(SEED, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        blocks = Blocks(arguments, Path(folder))
        names = blocks.names()
        blocks.run("single")  # once for all that a first use loads
        rounds: list[dict[str, dict[str, Seconds]]] = [
            {name: blocks.run(name) for name in rotated(names, turn)} for turn in range(arguments.rounds)
        ]
        phases = summary(blocks, rounds)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("out", "encoder", "threads")}
    results: dict[str, Any] = {
        **origin(torch, L, transformers),
        "settings": {"backbone": "bert" if arguments.encoder else "llama", **settings, "rank": RANK, "seed": SEED},
        "phases": phases,
    }
    report(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
