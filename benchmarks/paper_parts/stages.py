"""The paper's experiments on one world, a stage each: what is trained, and the figures that it leaves.

A stage is a function of the world to plain numbers; where they are kept and what is said of them is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_rm.analysis.features import separation
from lightning_rm.analysis.strength import grouped
from lightning_rm.data.rows import PairRow
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.scoring.engine import forwards
from lightning_rm.strength import (
    Treatment,
    adaptive_margin,
    decile,
    flip,
    label_smoothing,
    prefix,
    soft_label,
)
from paper_parts.policies import Policies
from paper_parts.sizes import Size
from paper_parts.world import World, judge_of

Figures = dict[str, Any]
ALPHA = 0.2
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
ASCENT = 0.003
"""Of MetaRM's step, times the norm of the weights: the paper's eta moves no model of this size."""

FLIP = partial(flip, below_quantile=0.1)
SMOOTH = partial(label_smoothing, alpha=ALPHA)
RECIPES: dict[str, list[Treatment]] = {
    "baseline": [],
    "flip": [FLIP],
    "margin": [adaptive_margin],
    "flip_margin": [FLIP, adaptive_margin],
    "soft_label_margin": [partial(SMOOTH, pairs="negative"), adaptive_margin],
}
DISTILLED: dict[str, list[Treatment]] = {"flip_negative": [partial(flip, below_mean=0.0)], "soft_label": [soft_label]}
"""Beside the recipes: all that the voters know, as a label and as a soft one."""
TOP: dict[str, list[Treatment]] = {
    "baseline": [],
    "margin": [adaptive_margin],
    "soft": [SMOOTH],
    "soft_margin": [SMOOTH, adaptive_margin],
}


def _contrastive(contrast: Any, **options: Any) -> Callable[..., PairwiseRM]:
    return partial(ContrastiveRM, contrast=contrast, dropout_at="embeddings", **options)


CONTRASTS: dict[str, Callable[..., PairwiseRM]] = {
    "two_views": _contrastive(SimCSE, beta=0.0),
    "simcse": _contrastive(SimCSE, beta=1.0),
    "simcse_diff": _contrastive(partial(SimCSE, samples="difference"), beta=1.0),
    "swav": _contrastive(partial(SwAV, num_prototypes=50), beta=0.1),
    "swav_diff": _contrastive(partial(SwAV, samples="difference", num_prototypes=20), beta=0.5),
}
"""The paper's settings (B.2), and its two views alone."""


def strength(world: World, size: Size) -> Figures:
    """Figs 1 to 3: what the voters say of the pairs, and how often the labels are right."""
    pairs = world.annotated()
    mean = np.array([pair.strength_mean for pair in pairs], np.float64)
    std = np.array([pair.strength_std for pair in pairs], np.float64)
    clean = np.array([bool(pair.clean) for pair in pairs])
    groups = grouped(mean, std, clean, num_groups=20)
    return {
        "share_negative": float((mean < 0).mean()),
        "share_wrong": float(1 - clean.mean()),
        "group_mean": groups.mean.tolist(),
        "group_std": groups.std.tolist(),
        "group_clean": groups.clean.tolist(),
        "mean": mean.round(3).tolist(),
    }


def deciles(world: World, size: Size) -> Figures:
    """Figs 4 and 5: each decile alone, and the two weakest turned round."""
    pairs = world.annotated()

    def alone(number: int, turned: bool = False) -> float:
        name = f"decile_{number}" + ("_turned" if turned else "")
        treatments: list[Treatment] = [partial(decile, number=number)]
        treatments += [partial(flip, below_quantile=1.0)] if turned else []
        return world.accuracy(judge_of(world.train(name, pairs, 0, treatments, epochs=size.part_epochs)))

    return {"alone": [alone(number) for number in range(10)], "turned": [alone(number, True) for number in range(2)]}


def top(world: World, size: Size) -> Figures:
    """Fig 6: four objectives on the strongest decile alone; the training loss of soft labels."""
    pairs = world.annotated()
    order = np.argsort(np.array([pair.strength_mean for pair in pairs], np.float64), kind="stable")
    strongest = [pairs[place] for place in order[-(len(pairs) // 10) :].tolist()]
    found: Figures = {}
    for name, treatments in TOP.items():
        chosen: list[Treatment] = [partial(decile, number=9), *treatments]
        judge = judge_of(world.train(f"top_{name}", pairs, 0, chosen, epochs=size.part_epochs))
        found[name] = world.accuracy(judge)
        if name == "soft":
            margin = torch.from_numpy(world.margins(judge, strongest))
            label = torch.full_like(margin, 1 - ALPHA)
            found["soft_loss"] = float(binary_cross_entropy_with_logits(margin, label))
    return found


def prefixes(world: World, size: Size) -> Figures:
    """Figs 21 and 22: growing parts from the weak and from the strong end."""
    pairs = world.annotated()

    def part(end: Any, share: float) -> float:
        name, end = ("prefix_all", "strong") if share == 1 else (f"prefix_{end}_{share:g}", end)
        treatments: list[Treatment] = [partial(prefix, share=share, end=end)]
        return world.accuracy(judge_of(world.train(name, pairs, 0, treatments)))

    return {end: [part(end, share) for share in SHARES] for end in ("weak", "strong")}


class AfterEpochs(L.Callback):
    """Accuracy on the clean test pairs after every epoch."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.accuracies: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model: Any = pl_module.model
        self.accuracies.append(self.world.accuracy(judge_of(model)))


def recipe(world: World, size: Size, name: str) -> Figures:
    """Figs 7 and 8, one recipe: accuracy on clean pairs after every epoch over all pairs."""
    treatments = {**RECIPES, **DISTILLED}[name]
    pairs = world.annotated() if treatments else world.pairs
    seen = AfterEpochs(world)
    folder = world.folder / "models" / f"recipe_{name}" / "done"
    folder.unlink(missing_ok=True)  # a model that is kept tells nothing of its epochs
    model = world.train(f"recipe_{name}", pairs, 0, treatments, epochs=size.recipe_epochs, callbacks=[seen])
    return {"after_epoch": seen.accuracies, "nll": world.nll(judge_of(model))}


def contrast(world: World, size: Size, name: str) -> Figures:
    """Fig 11 and the table: accuracy, and how far features of chosen and rejected lie apart."""
    if name == "baseline":
        model = world.train(name, world.pairs)
    else:
        model = world.train(f"contrast_{name}", world.pairs, module=CONTRASTS[name])
    judge = judge_of(model)
    figures = {"accuracy": world.accuracy(judge), "nll": world.nll(judge)}
    return {**figures, "separation": separation(features(world, model))}


def features(world: World, model: AnyRewardModel, num_pairs: int = 500) -> torch.Tensor:
    """(2, P, H) what the head reads of test pairs."""
    pairs: Sequence[PairRow] = world.test_pairs[:num_pairs]
    ids = [tuple(world.encode(pair.prompt, side)) for pair in pairs for side in (pair.chosen, pair.rejected)]
    found = torch.empty(len(ids), model.hidden_size)
    for places, output in forwards(model, ids, model):
        found[places] = output.feature[0].float()
    return found.view(len(pairs), 2, -1).transpose(0, 1)


@lru_cache(maxsize=1)
def policies_of(world: World, size: Size) -> Policies:
    """The policies of the world that is at hand: its samples are drawn and tokenised once."""
    return Policies(world, max(size.prompts, size.fresh_prompts), size.test_prompts)


def policy(world: World, size: Size, name: str) -> Figures:
    """The best of n by a first model: what each row makes of that policy's responses, and of the next policy.

    `meta_2` is MetaRM's second round, which reads responses of the policy of its first model.
    """
    policies = policies_of(world, size)
    before, judge = "first", policies.first_judge
    if name == "baseline":
        model = world.train(name, world.pairs)
    elif name.startswith("meta"):
        if (turn := int(name.rpartition("_")[2])) > 1:
            before = f"meta_{turn - 1}"
            judge = judge_of(world.train(before, world.pairs))  # it is there already
        groups = policies.trained_on(before, judge, size.prompts)
        meta = partial(MetaRM, ascent_lr=ASCENT, ascent_scale="relative")
        model = world.train(name, world.pairs, module=meta, responses=groups)
    elif name == "flip":
        model = world.train("policy_flip", world.annotated(), treatments=[FLIP])
    else:
        groups = policies.trained_on(before, judge, size.fresh_prompts)
        pairs = policies.mixed(1 / 3, groups)
        pairs = world.annotated_by_heads(name, pairs) if name == "flip_fresh" else pairs
        model = world.train(name, pairs, treatments=[FLIP] if name == "flip_fresh" else [])
    return policies.measure(judge_of(model), policies.measured_on(before, judge))


def stages(size: Size) -> dict[str, Callable[[World, Size], Figures]]:
    """Every stage by name, in order."""
    rows = ["baseline", *(f"meta_{turn}" for turn in range(1, size.rounds + 1)), "flip", "fresh", "flip_fresh"]
    return {
        "strength": strength,
        "deciles": deciles,
        "top": top,
        "prefixes": prefixes,
        **{f"recipe_{name}": partial(recipe, name=name) for name in (*RECIPES, *DISTILLED)},
        **{f"contrast_{name}": partial(contrast, name=name) for name in ("baseline", *CONTRASTS)},
        **{f"policy_{name}": partial(policy, name=name) for name in rows},
    }
