"""What objectives make of levels of preference under noise, in a linear reward model, where nothing else acts.

    OMP_NUM_THREADS=1 python benchmarks/objectives.py --out benchmarks/results/objectives_linear.json

A response is 40 made features, its gold reward a linear map of them. The made world's annotators give levels from -3 to
3 with ties; a quarter of their preferences are turned round. Every objective trains the same linear model on the same
pairs from zero, by the package's own losses and treatments, and is measured on clean pairs. A seed is a world of its
own, and differences to the baseline are paired by it, with Student's 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import origin
from torch import Tensor

from lightning_rm.analysis.paired import paired_difference
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.losses import (
    ordinal_losses,
    ranking_loss,
    ranking_losses,
    response_rank_loss,
    spread_groups,
    trimmed_weight,
)
from lightning_rm.modules.ordinal import Thresholds
from lightning_rm.strength import Strength, Targets, Treatment, adaptive_margin, soft_label, treat, weight

FEATURES, STEPS, BATCH, RATE, TEST_PAIRS = 40, 400, 64, 0.02, 4000
SPREAD = 3.0
"""Standard deviation of the gold margins, in logits of the annotator."""

CONDITIONS: dict[str, dict[str, Any]] = {
    "as felt": {},
    "one level too strong": {"level_shift": 1},
    "a quarter of the levels at random": {"random_levels": 0.25},
}


class World(NamedTuple):
    """Training pairs and clean test pairs, each as the difference of two responses' features."""

    pairs: Tensor
    level: Tensor
    test: Tensor
    test_gold: Tensor


def world(seed: int, num_pairs: int, noise: float, **annotator: Any) -> World:
    """A gold reward, pairs, and what annotators say of them."""
    draw = np.random.default_rng(seed)
    gold = draw.normal(size=FEATURES)
    gold *= SPREAD / np.sqrt(2) / np.linalg.norm(gold)
    pairs, test = (draw.normal(size=(number, 2, FEATURES)) for number in (num_pairs, TEST_PAIRS))
    pairs, test = pairs[:, 0] - pairs[:, 1], test[:, 0] - test[:, 1]
    says = Annotator(noise, 0.0, 1.0, num_levels=3, **annotator)
    level = [says.level(float(d @ gold), 0, Draws("objectives", seed, i)) for i, d in enumerate(pairs)]
    tensors = (torch.tensor(values, dtype=torch.float32) for values in (pairs, level, test, test @ gold))
    return World(*tensors)


Loss = Callable[[Tensor, Tensor, dict[str, Tensor], int], Tensor]
"""From margins, strengths, targets and the step to a loss."""


def ranked(margin: Tensor, strength: Tensor, targets: dict[str, Tensor], step: int) -> Tensor:
    zero = torch.zeros_like(margin)
    return ranking_loss(margin, zero, targets["label"], targets["margin"], targets["weight"])


def response_rank(margin: Tensor, strength: Tensor, targets: dict[str, Tensor], step: int) -> Tensor:
    return response_rank_loss(margin, strength, spread_groups(strength, 8))


def trimmed(margin: Tensor, strength: Tensor, targets: dict[str, Tensor], step: int) -> Tensor:
    losses = ranking_losses(margin, torch.zeros_like(margin))
    return (losses * trimmed_weight(losses, losses, 0.25)).mean() if step >= STEPS // 4 else losses.mean()


def symmetric(margin: Tensor, strength: Tensor, targets: dict[str, Tensor], step: int) -> Tensor:
    return ranking_loss(margin, torch.zeros_like(margin), loss="sigmoid")


class Ordinal:
    """Thresholds, trained with the rewards."""

    def __init__(self, penalty: float = 0.01) -> None:
        self.thresholds, self.penalty = Thresholds(3), penalty

    def __call__(self, margin: Tensor, strength: Tensor, targets: dict[str, Tensor], step: int) -> Tensor:
        thresholds = self.thresholds()
        return ordinal_losses(margin, strength, thresholds).mean() + self.penalty * thresholds.square().sum()


class Objective(NamedTuple):
    """A loss, the treatments that make its targets, and whether ties are trained on."""

    loss: Callable[[], Loss]
    treatments: list[Treatment] = []  # noqa: RUF012  # read alone
    ties: bool = False


OBJECTIVES: dict[str, Objective] = {
    "baseline": Objective(lambda: ranked),
    "baseline, ties kept": Objective(lambda: ranked, ties=True),
    "ordinal": Objective(Ordinal, ties=True),
    "ordinal, ties dropped": Objective(Ordinal),
    "margin": Objective(lambda: ranked, [adaptive_margin]),
    "soft label": Objective(lambda: ranked, [soft_label]),
    "soft label + margin": Objective(lambda: ranked, [soft_label, adaptive_margin]),
    "scaled": Objective(lambda: ranked, [weight]),
    "scaled 1, 3, 10": Objective(lambda: ranked, [partial(weight, of_level=[1, 3, 10])]),
    "ResponseRank": Objective(lambda: response_rank),
    "trimmed": Objective(lambda: trimmed),
    "symmetric": Objective(lambda: symmetric),
}


def train(made: World, objective: Objective, seed: int) -> dict[str, float]:
    """Train one linear reward model; its clean accuracy, and the correlation of its margins with those of gold."""
    level = made.level
    turn = torch.where(level < 0, -1.0, 1.0)  # the preferred response is chosen
    kept = slice(None) if objective.ties else level != 0
    pairs, strength = (made.pairs * turn[:, None])[kept], (level * turn)[kept]
    labels = np.where(strength.numpy() == 0, 0.5, 1.0)
    plain = Targets.of(labels, np.zeros(len(labels)), np.ones(len(labels)))
    known = Strength.of(strength.double().numpy(), np.zeros(len(strength)), np.full(len(strength), np.nan))
    treated = treat(known, plain, objective.treatments)
    columns = {
        name: torch.tensor(getattr(treated, name), dtype=torch.float32) for name in ("label", "margin", "weight")
    }
    reward = torch.nn.Parameter(torch.zeros(FEATURES))
    loss = objective.loss()
    parameters = [reward, *(loss.thresholds.parameters() if isinstance(loss, Ordinal) else ())]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    generator = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        rows = torch.randint(len(pairs), (BATCH,), generator=generator)
        optimizer.zero_grad()
        of_rows = {name: values[rows] for name, values in columns.items()}
        loss(pairs[rows] @ reward, strength[rows], of_rows, step).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        margin = made.test @ reward
        accuracy = (margin.sign() == made.test_gold.sign()).double().mean()
        return {
            "accuracy": float(accuracy),
            "correlation": float(np.corrcoef(margin.numpy(), made.test_gold.numpy())[0, 1]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=0.25)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/objectives_linear.json"))
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for condition, options in CONDITIONS.items():
        values: dict[str, dict[int, dict[str, float]]] = {name: {} for name in OBJECTIVES}
        for seed in range(arguments.seeds):
            made = world(seed, arguments.pairs, arguments.noise, **options)
            for name, objective in OBJECTIVES.items():
                values[name][seed] = train(made, objective, seed)
        found[condition] = {name: summary(of_seeds, values["baseline"]) for name, of_seeds in values.items()}
        print(f"\n{condition}: clean accuracy, and its difference to the baseline")
        for name, one in found[condition].items():
            low, high = one["difference"]["low"], one["difference"]["high"]
            told = f"{one['difference']['mean']:+.4f} [{low:+.4f}, {high:+.4f}] {one['difference']['verdict']}"
            print(f"{name:24} {one['accuracy']:.4f}   {told if name != 'baseline' else ''}")
    arguments.out.write_text(
        json.dumps({**origin(torch, np), "seeds": arguments.seeds, "found": found}, indent=1) + "\n"
    )


def summary(values: dict[int, dict[str, float]], baseline: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Mean accuracy and correlation, the accuracy of each seed, and the paired difference to the baseline."""
    accuracy, reference = ({seed: one["accuracy"] for seed, one in each.items()} for each in (values, baseline))
    difference = paired_difference(accuracy, reference)
    assert difference is not None
    return {
        "accuracy": float(np.mean(list(accuracy.values()))),
        "correlation": float(np.mean([one["correlation"] for one in values.values()])),
        "difference": {
            "mean": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "verdict": difference.verdict,
        },
        "by_seed": [round(accuracy[seed], 5) for seed in sorted(accuracy)],
    }


if __name__ == "__main__":
    main()
