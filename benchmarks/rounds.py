"""Four rounds of RLHF on the made world by each round's reward model: what MetaRM's rounds give, and what labels cost.

    lightning-rm train experiment=sft
    lightning-rm train experiment=sft data.flawless=false data.noise=0.25 data.num_pairs=12000 hydra.run.dir=runs/start
    python benchmarks/rounds.py runs/start/model/last runs/sft/model/last --worlds 0 1 2 --out runs/rounds
    python benchmarks/rounds.py runs/start/model/last runs/sft/model/last --optimizer grpo --lr 1e-4 --out runs/grpo
    python benchmarks/rounds.py --table benchmarks/results/rounds.json
    python benchmarks/rounds.py --within runs/rounds/world_0/baseline

The start policy has learned the chosen responses of noisy pairs. Every reward model starts from the tiny decoder that
has learned flawless answers, on pairs with 25 % wrong labels. All methods of a world have the same start policy, the
same prompts, held-out prompts and random numbers. `baseline` is retrained on nothing new but seeds; `meta` reads each
round's responses without labels; `labels` is the baseline with a pair of a tenth of each round's prompts labelled by
the world's annotators, with the same errors; `simcse` contrasts responses, by a tenth of the contrast's loss; `ocrm`
weighs the pairs by each round's policy, by OCRM's power and by ten times it, with the start policy for the one that
wrote them. `flip` turns the weakest tenth of the pairs round, by the votes of ten heads (`lightning-rm curate`), and
`all` is flip, labels and SimCSE together; `mean` and `warm` train five models a round. Policies are fine-tuned on the
best of eight responses, or improved by TRL's GRPO or RLOO (`--optimizer`, each with an `--out` of its own). Gold is
compared at equal KL too: that of each method on a straight line between its rounds, at the KL that all methods reach.
A run that is stopped goes on; `rounds.json` is written after every run.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from benchmarks.common import origin
from lightning_rm.analysis.paired import paired_difference
from lightning_rm.commands._config import conf_dir
from lightning_rm.commands.main import main as lightning_rm
from lightning_rm.commands.rlhf import rlhf
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.rlhf.changes import change
from lightning_rm.rlhf.measures import read_judged

NOISE = 0.25
ANNOTATOR = f"{{_target_: lightning_rm.data.synthetic.annotator.Annotator, noise: {NOISE}}}"
METHODS = {
    "baseline": [],
    "meta": ["module=meta", "module.ascent_scale=relative", "module.ascent_lr=0.01"],
    "labels": ["labels.share=0.1", f"labels.annotator={ANNOTATOR}"],
    "simcse": ["module=contrastive", "contrast=simcse", "contrast.temperature=0.2", "module.beta=0.1"],
    "flip": [],
    "mean": ["num_models=5"],
    "warm": ["num_models=5", "combine=warm"],
    "ocrm": ["weigh=true"],
    "ocrm_strong": ["weigh=true", "weighing.power=0.1", "weighing.clip=5"],
}
METHODS["all"] = [*METHODS["simcse"], *METHODS["labels"]]
FLIPPED = ("flip", "all")
MEASURES = ("gold", "reward", "agreement", "kl", "length", "distinct_2", "self_bleu", "perplexity")


def in_a_fork(words: Sequence[str]) -> None:
    """Run a command in a fork of this process, which has imported everything."""
    child = multiprocessing.get_context("fork").Process(target=_become, args=(list(words),))
    child.start()
    child.join()
    if child.exitcode:
        raise ValueError(f"lightning-rm {' '.join(words)} has failed")


def _become(words: list[str]) -> None:
    GlobalHydra.instance().clear()
    sys.argv = ["lightning-rm", *words]
    lightning_rm()


def rounds_of(words: Sequence[str]) -> None:
    """Run `lightning-rm rlhf` here, and what it runs in forks."""
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("rlhf", overrides=list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    rlhf(cfg, words, in_a_fork)


def write_world(folder: Path, world: int, num_pairs: int, num_val: int) -> None:
    """Write a world's pairs, and others whose prompts policies are judged by."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("prompt", "chosen", "rejected", "id", "prompt_id")
    for name, split, num in (("pairs", "train", num_pairs), ("val", "val", num_val)):
        rows = SyntheticSource(num, split=split, noise=NOISE, seed=world)
        lines = (json.dumps({name: getattr(row, name) for name in names}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def flipped(folder: Path, arguments: argparse.Namespace, world: int) -> Path:
    """Return the world's pairs with the weakest tenth turned round: what `lightning-rm curate` makes of them, once."""
    curated = folder / "curated"
    if not (curated / "clean.parquet").is_file():
        in_a_fork(
            [
                *("curate", f"data.file={folder}/pairs.jsonl", *_training(arguments)),
                *("share=0.1", f"seed={world}", f"out={curated}"),
            ]
        )
    return curated / "clean.parquet"


def run(arguments: argparse.Namespace, world: int, method: str) -> dict[str, Any]:
    """Four rounds of a method in a world: a row of measures a round."""
    folder = arguments.out / f"world_{world}"
    if not (folder / "val.jsonl").is_file():
        write_world(folder, world, arguments.pairs, 600)
    pairs = flipped(folder, arguments, world) if method in FLIPPED else folder / "pairs.jsonl"
    rounds_of(
        [
            *(f"policy={arguments.policy}", f"data.file={pairs}", f"data.val_file={folder}/val.jsonl"),
            *(*_training(arguments), "monitor=null", "logger=none", f"out={folder}/{method}"),
            *(f"rounds={arguments.rounds}", f"num_prompts={arguments.prompts}", "k=8", "max_new_tokens=32"),
            *("batch_prompts=32", f"num_eval_prompts={arguments.eval_prompts}", "eval_k=4"),
            *(f"seed={world}", "init_seed=0"),
            *_optimizer(arguments),
            *METHODS[method],
        ]
    )
    told = json.loads((folder / method / "rounds.json").read_text(encoding="utf-8"))["rounds"]
    return {"rounds": told}


def _training(arguments: argparse.Namespace) -> list[str]:
    """Return the words that say how a reward model is trained, voters too."""
    return [
        *("data=jsonl", f"data.cache_dir={arguments.out}/cache", "data.max_tokens=256", "data.batch_pairs=32"),
        *("data.epochs=2", "data.eval_batch_pairs=128", "backbone=hub", f"backbone.path={arguments.reward_start}"),
        *("optimizer.lr=1e-3", "trainer=cpu", "accelerator=cpu"),
    ]


def _optimizer(arguments: argparse.Namespace) -> list[str]:
    """Return the words that choose how the policy is improved, with 64 completions a step of TRL's trainers."""
    chosen = f"policy_optimizer={arguments.optimizer}"
    if arguments.optimizer == "best_of_n":
        return [chosen, f"policy_optimizer.lr={arguments.lr}", "policy_optimizer.epochs=2"]
    args = "policy_optimizer.args"
    beta = f"{args}.beta={arguments.beta}"
    return [chosen, f"{args}.learning_rate={arguments.lr}", f"{args}.per_device_train_batch_size=64", beta]


def table(runs: dict[str, dict[str, Any]]) -> None:
    """Print measures by round with their spread over worlds, and paired differences of gold from the baseline."""
    print(f"| method | round | worlds | {' | '.join(MEASURES)} |\n|---|---|---|{'---|' * len(MEASURES)}")
    for method, worlds in runs.items():
        for number in next(iter(worlds.values()))["rounds"]:
            cells = [_mean([found["rounds"][number][name] for found in worlds.values()]) for name in MEASURES]
            print(f"| {method} | {number} | {len(worlds)} | {' | '.join(cells)} |")
    print("\n| gold, against | round | difference, 95 % interval | worlds | |\n|---|---|---|---|---|")
    for method, worlds in runs.items():
        for number in list(next(iter(worlds.values()))["rounds"])[1:]:
            own = {world: found["rounds"][number]["gold"] for world, found in worlds.items()}
            start = {world: found["rounds"]["0"]["gold"] for world, found in worlds.items()}
            references = {f"{method} - start": start}
            if method != "baseline":
                others = {world: found["rounds"][number]["gold"] for world, found in runs["baseline"].items()}
                references[f"{method} - baseline"] = others
            for name, reference in references.items():
                found = paired_difference(own, reference)
                if found is not None and found.num > 1:
                    print(f"| {name} | {number} | {found.text} | {found.num} | {found.verdict} |")


def at_equal_kl(runs: dict[str, dict[str, Any]]) -> None:
    """Print each method's gold at the same KL from the start policy, and its difference from the baseline's."""
    every = [found["rounds"] for worlds in runs.values() for found in worlds.values()]
    farthest = min(max(measures["kl"] for measures in rounds.values()) for rounds in every)
    print("\n| KL | method | gold there | less the baseline's, 95 % interval | worlds | |\n|---|---|---|---|---|---|")
    for kl in (farthest / 4, farthest / 2, farthest):
        gold = {
            method: {world: _gold_at(found["rounds"], kl) for world, found in worlds.items()}
            for method, worlds in runs.items()
        }
        for method, own in gold.items():
            told = f"| {kl:.1f} | {method} | {_mean(list(own.values()))} |"
            found = None if method == "baseline" else paired_difference(own, gold.get("baseline", {}))
            if found is not None and found.num > 1:
                print(f"{told} {found.text} | {found.num} | {found.verdict} |")
            else:
                print(f"{told} | {len(own)} | |")


def _gold_at(rounds: dict[str, Any], kl: float) -> float:
    """Return gold at a divergence, by a straight line between the first two rounds in a row that lie around it."""
    points = [(found["kl"], found["gold"]) for _, found in sorted(rounds.items(), key=lambda each: int(each[0]))]
    for (start, low), (end, high) in pairwise(points):
        if start <= kl <= end and end > start:
            return low + (kl - start) / (end - start) * (high - low)
    return points[-1][1]


def within(folder: Path) -> None:
    """Print how gold changes between rounds of one run, with 95 % intervals over draws of its held-out prompts."""
    judged = [read_judged(path.parent) for path in sorted(folder.glob("round_*/judged.jsonl"))]
    best = max(range(len(judged)), key=lambda number: judged[number][0].worth)
    print("| gold of round | difference | 95 % interval over prompts |\n|---|---|---|")
    for later, earlier in [(number, 0) for number in range(1, len(judged))] + [(len(judged) - 1, best)]:
        found = change(judged[later][1], judged[earlier][1])
        if found is not None:
            print(f"| {later} - {earlier} | {found.mean:+.3f} | [{found.low:+.3f}, {found.high:+.3f}] |")


def _mean(values: Sequence[float | None]) -> str:
    known = torch.tensor([value for value in values if value is not None])
    if not len(known):
        return ""
    return f"{known.mean():.3f}" + (f" ± {known.std():.3f}" if len(known) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", nargs="?", help="the start policy")
    parser.add_argument("reward_start", nargs="?", help="where reward models start")
    parser.add_argument("--table", type=Path, nargs="*", help="print the tables of finished results, all together")
    parser.add_argument("--within", type=Path, help="print changes within one run's folder")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--eval-prompts", type=int, default=300)
    parser.add_argument("--optimizer", default="best_of_n", choices=("best_of_n", "grpo", "rloo"))
    parser.add_argument("--lr", type=float, default=1e-3, help="of the policy")
    parser.add_argument("--beta", type=float, default=0.0, help="of TRL's trainers, the weight of KL from the policy")
    parser.add_argument("--out", type=Path, default=Path("runs/rounds"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if arguments.within:
        within(arguments.within)
        return
    if arguments.table:
        found: dict[str, dict[str, Any]] = {}
        for file in arguments.table:
            for method, worlds in json.loads(file.read_text(encoding="utf-8"))["runs"].items():
                found.setdefault(method, {}).update(worlds)
        table(found)
        at_equal_kl(found)
        return
    torch.set_num_threads(1)
    file = arguments.out / "rounds.json"
    told: dict[str, Any] = {"runs": {}}
    if file.is_file():
        told = json.loads(file.read_text(encoding="utf-8"))
    for world in arguments.worlds:
        for method in arguments.methods:
            if str(world) in told["runs"].get(method, {}):
                continue
            told["runs"].setdefault(method, {})[str(world)] = run(arguments, world, method)
            told = origin(torch, lightning, transformers) | told
            file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    table(told["runs"])
    at_equal_kl(told["runs"])


if __name__ == "__main__":
    main()
