"""A shift that a reward model makes itself, and what repairs it: the best of n responses by its own rewards.

    lightning-rm train experiment=sft data.module.val=null data.module.test=null data.val_fraction=0 logger=csv
    python benchmarks/shift.py --worlds 0 1 2 --seeds 0 1 2
    python benchmarks/shift.py --worlds 0 1 2 --seeds 0 1 2 --rounds 3
    python benchmarks/shift_table.py runs/shift --out benchmarks/results/shift.json

A first reward model, trained on the made world's pairs, makes the policy: of n base responses it says the one with the
highest reward. Every row then trains a model anew from the same SFT model, on as many labels, and is measured

    on groups of five responses of that policy, n = 4, 16 and 64: how far its rewards order them as gold does;
    as the next policy's maker: gold of the best of n base responses by its own rewards, and how far it orders those.

`headroom` trains on pairs of the policy alone: the most that labels of the target are worth. Fresh labels and response
groups are of the best of 16, of training prompts; nothing that is measured was trained on. Voters are five models that
differ in their seed, the first of them the baseline; for pairs of which a part is fresh they are ten heads on one
backbone, trained on these pairs. `--rounds` follows a few rows, each with the policy that its own latest model makes.

Models of 0.1M weights, one core, about twelve minutes a world and seed; every model and every row that is done is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import origin
from paper_parts.policies import Policies, above
from paper_parts.world import Judge, Settings, World, ensemble, judge_of
from shift_table import OTHER_SEEDS

from lightning_rm.drafts import draft_of
from lightning_rm.models.ensembles.aggregate import Aggregate
from lightning_rm.models.ensembles.warm import average_weights
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.strength import Treatment, adaptive_margin, flip, label_smoothing, soft_label

ASCENT = 0.003
"""Of MetaRM's step, times the norm of the weights: the paper's eta moves none of these models."""
TENTH = partial(flip, below_quantile=0.1)
BY_STRENGTH: dict[str, list[Treatment]] = {
    "flip": [TENTH],
    "flip_negative": [partial(flip, below_mean=0.0)],
    "soft_label": [soft_label],
    "soft_label_margin": [partial(label_smoothing, alpha=0.2, pairs="negative"), adaptive_margin],
}
FRESH = {"fresh_10": 0.1, "fresh_33": 1 / 3, "fresh_50": 0.5, "fresh_33_disputed": 1 / 3}
ROWS = (
    *("baseline", "headroom", "flip", "fresh_33", "flip_fresh", "fresh_33_disputed", "ensemble_mean", "meta_up"),
    *("meta_up_above", "mean_minus_variance", "warm", "soft_label", "distilled", "fresh_50", "fresh_10"),
    *("soft_label_margin", "simcse", "two_views", "simcse_fresh_33", "simcse_flip_fresh", "meta_down", "flip_negative"),
    *("simcse_1", "simcse_diff", "swav", "swav_diff", "worst_case"),
)
ENSEMBLES: dict[str, Aggregate] = {
    "ensemble_mean": "mean",
    "mean_minus_variance": "mean_minus_variance",
    "worst_case": "worst",
}
TWO_VIEWS = partial(ContrastiveRM, contrast=partial(SimCSE, temperature=0.2), dropout_at="embeddings")
LIGHT = partial(TWO_VIEWS, beta=0.1)
"""SimCSE on responses with a tenth of its loss; by `beta=0` what its two dropout masks do without it."""
CONTRASTS = {
    "simcse": LIGHT,
    "two_views": partial(TWO_VIEWS, beta=0.0),
    "simcse_1": partial(TWO_VIEWS, beta=1.0),
    "simcse_diff": partial(LIGHT, contrast=partial(SimCSE, samples="difference", temperature=0.2)),
    "swav": partial(LIGHT, contrast=SwAV),
    "swav_diff": partial(LIGHT, contrast=partial(SwAV, samples="difference", num_prototypes=20)),
}
"""With the pairs as they are: the paper's weight of SimCSE is 1 and that of SwAV .1, with 50 prototypes or 20."""
ROUNDS = ("baseline", "simcse", "fresh_33", "simcse_flip_fresh")


def judge_of_row(world: World, policies: Policies, name: str) -> Judge:
    """What the model of a row says."""
    pairs, groups = world.pairs, policies.first_groups
    if name == "baseline":
        return judge_of(world.train(name, pairs))
    if name in OTHER_SEEDS:
        return judge_of(world.voters()[int(name[-1]) - 1])
    if name in ENSEMBLES:
        zero = [world.encode(pair.prompt, pair.chosen) for pair in pairs[:500]]
        return ensemble(world.voters(), ENSEMBLES[name], zero)
    if name == "warm":
        return judge_of(average_weights(world.voters()))
    if name in BY_STRENGTH:
        return judge_of(world.train(name, world.annotated(), treatments=BY_STRENGTH[name]))
    if name == "headroom":  # as many as there are, if they are fewer
        return judge_of(world.train(name, policies.candidates(groups)[: len(pairs)]))
    if name in CONTRASTS:
        return judge_of(world.train(name, pairs, module=CONTRASTS[name]))
    method = LIGHT if name.startswith("simcse_") else StrengthAwareRM
    labels = name.removeprefix("simcse_")
    if labels in FRESH:
        mixed = policies.mixed(FRESH[labels], groups, labels.endswith("disputed"))
        return judge_of(world.train(name, mixed, module=method))
    if labels == "flip_fresh":
        mixed = world.annotated_by_heads(labels, policies.mixed(FRESH["fresh_33"], groups))
        return judge_of(world.train(name, mixed, treatments=[TENTH], module=method))
    if name == "distilled":  # no label is fresh: all are what the voters believe
        unlabelled = policies.mixed(FRESH["fresh_33"], groups)
        return judge_of(world.train(name, world.annotated(unlabelled), treatments=[soft_label]))
    rate = -ASCENT if name == "meta_down" else ASCENT
    method = partial(MetaRM, ascent_lr=rate, ascent_scale="relative")
    theta = world.train(name.removesuffix("_above"), pairs, module=method, responses=groups)
    return above(theta, world.ids(groups[:320]), rate) if name.endswith("_above") else judge_of(theta)


def of_round(world: World, policies: Policies, name: str) -> dict[str, Any]:
    """The figures of a method and round: in `fresh_33_2` labels are fresh from the policy of `fresh_33`."""
    method, _, turn = name.rpartition("_")
    if turn == "1":
        return policies.measure(judge_of_row(world, policies, method))
    before = method if turn == "2" else f"{method}_{int(turn) - 1}"
    judge = judge_of(world.train(before, world.pairs))  # it is there already
    groups, measured = policies.trained_on(before, judge), policies.measured_on(before, judge)
    pairs = world.pairs if method in ("baseline", "simcse") else policies.mixed(FRESH["fresh_33"], groups)
    treatments: list[Treatment] = []
    if method == "simcse_flip_fresh":
        pairs, treatments = world.annotated_by_heads(name, pairs), [TENTH]
    module = LIGHT if method.startswith("simcse") else StrengthAwareRM
    return policies.measure(judge_of(world.train(name, pairs, 10 + int(turn), treatments, module)), measured)


def run(world: World, policies: Policies, arguments: argparse.Namespace) -> None:
    """What is missing of a world and seed, written after every row."""
    path = world.folder / ("rounds.json" if arguments.rounds else "rows.json")
    settings = {
        name: getattr(arguments, name) for name in ("pairs", "epochs", "lr", "noise", "prompts", "test_prompts")
    }
    found: dict[str, Any] = {**origin(torch, L), "world": world.world, "seed": world.seed, "settings": settings}
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**found, "rows": {}}
    if found["settings"] != settings:
        raise ValueError(f"{path} is of other settings, {found['settings']}: give another --folder")
    rows = [f"{name}_{turn}" for turn in range(1, arguments.rounds + 1) for name in ROUNDS] or arguments.rows
    for name in rows:
        if name in found["rows"]:
            continue
        start = time.process_time()
        if arguments.rounds:
            row = of_round(world, policies, name)
        else:
            row = policies.measure(judge_of_row(world, policies, name))
        found["rows"][name] = row | {"seconds": round(time.process_time() - start, 1)}
        with draft_of(path) as draft:
            draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(
            f"world {world.world} seed {world.seed} {name:20} clean {row['clean']:.3f} gold of the best of 64 "
            f"{row['gold']['64']:.3f} correlation {row['policy_64'].get('gold_correlation', float('nan')):+.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/sft/model/last", help="the SFT model that all begin from")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=(*ROWS, *OTHER_SEEDS))
    parser.add_argument("--rounds", type=int, default=0, help="follow some methods over so many rounds instead")
    parser.add_argument("--pairs", type=int, default=6000, help="labels of every row")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=0.235, help="of labels; 25 %% are wrong then")
    parser.add_argument("--prompts", type=int, default=2000, help="of training, that the policy answers")
    parser.add_argument("--test-prompts", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("runs/shift"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    settings = Settings(arguments.start, arguments.pairs, arguments.epochs, arguments.noise, lr=arguments.lr)
    for seed in arguments.seeds:
        for number in arguments.worlds:
            world = World(settings, arguments.folder / f"{number}-{seed}", number, seed)
            run(world, Policies(world, arguments.prompts, arguments.test_prompts), arguments)


if __name__ == "__main__":
    main()
