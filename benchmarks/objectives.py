"""What objectives make of levels of preference, in a linear reward model, where nothing else acts.

    OMP_NUM_THREADS=1 python benchmarks/objectives.py --out benchmarks/results/objectives_linear.json
    OMP_NUM_THREADS=1 python benchmarks/objectives.py --people FOLDER --minilm FOLDER

A response is 40 made features, its gold reward a linear map of them. The made world's annotators give levels from -3 to
3 with ties; a quarter of their preferences are turned round. Every objective trains the same linear model on the same
pairs from zero, by the package's own losses and treatments, and is measured on clean pairs. A seed is a world of its
own, and differences to the baseline are paired by it, with Student's 95 % interval.

With `--people` features are what MiniLM, frozen, makes of the arguments of UKPConvArg1, the three files that
`data/ukp_convarg.py` writes, and levels what five people say, from -5 to 5. Each of 13 debates is held out once,
trained on are the others, and differences are paired by debate. Losses differ in their scale, so that each objective
has the learning rate that is best for it on the mean of the other twelve debates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from common import origin
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

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

PEOPLE_RATES = (0.0002, 0.0006, 0.002)
Block = TypeVar("Block", bound=Hashable)

CONDITIONS: dict[str, dict[str, Any]] = {
    "as felt": {},
    "one level too strong": {"level_shift": 1},
    "a quarter of the levels at random": {"random_levels": 0.25},
}


class World(NamedTuple):
    """Training pairs and test pairs, each as the difference of two responses' features; of the latter gold margins."""

    pairs: Tensor
    level: Tensor
    test: Tensor
    test_gold: Tensor
    num_levels: int = 3
    steps: int = STEPS


def world(seed: int, num_pairs: int, noise: float, **annotator: Any) -> World:
    """A gold reward, pairs, and what annotators say of them."""
    draw = np.random.default_rng(seed)
    gold = draw.normal(size=FEATURES)
    gold *= SPREAD / np.sqrt(2) / np.linalg.norm(gold)
    pairs, test = (draw.normal(size=(number, 2, FEATURES)) for number in (num_pairs, TEST_PAIRS))
    pairs, test = pairs[:, 0] - pairs[:, 1], test[:, 0] - test[:, 1]
    says = Annotator(noise, 0.0, 1.0, num_levels=3, **annotator)
    level = [says.level(float(d @ gold), 0, Draws("objectives", seed, i)) for i, d in enumerate(pairs)]
    made = [torch.tensor(values, dtype=torch.float32) for values in (pairs, level, test, test @ gold)]
    return World(made[0], made[1], made[2], made[3])


def debates(folder: Path, minilm: Path) -> dict[str, World]:
    """UKPConvArg1 with each debate held out in turn."""
    files = [folder / f"{name}.jsonl" for name in ("train", "ties", "val")]
    pairs = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    texts = sorted({pair[side] for pair in pairs for side in ("chosen", "rejected")})
    feature = dict(zip(texts, mean_pooled(texts, minilm), strict=True))
    difference = torch.stack([feature[pair["chosen"]] - feature[pair["rejected"]] for pair in pairs])
    level = torch.tensor([round(5 * pair["strength"]) for pair in pairs], dtype=torch.float32)
    name = np.array([pair["subset"].partition("_")[0] for pair in pairs])
    told = level.numpy() != 0
    made: dict[str, World] = {}
    for debate in sorted(set(name)):
        rest, held_out = name != debate, (name == debate) & told
        made[debate] = World(difference[rest], level[rest], difference[held_out], level[held_out], 5, 2 * STEPS)
    return made


@torch.no_grad()
def mean_pooled(texts: list[str], minilm: Path) -> Tensor:
    """The mean hidden state of each text, standardised over all texts."""
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    rows: list[Tensor] = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        rows.append(model(**tokens).last_hidden_state[0].mean(0))
    features = torch.stack(rows)
    return (features - features.mean(0)) / features.std(0)


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

    def __init__(self, num_levels: int, penalty: float = 0.01) -> None:
        self.thresholds, self.penalty = Thresholds(num_levels), penalty

    def __call__(self, margin: Tensor, strength: Tensor, targets: dict[str, Tensor], step: int) -> Tensor:
        thresholds = self.thresholds()
        return ordinal_losses(margin, targets["level"], thresholds).mean() + self.penalty * thresholds.square().sum()


def always(loss: Loss) -> Callable[[int], Loss]:
    """A loss that has no use for the number of levels."""
    return lambda num_levels: loss


class Objective(NamedTuple):
    """A loss of so many levels, the treatments that make its targets, and whether ties are trained on."""

    loss: Callable[[int], Loss]
    treatments: list[Treatment] = []  # noqa: RUF012  # read alone
    ties: bool = False


OBJECTIVES: dict[str, Objective] = {
    "baseline": Objective(always(ranked)),
    "baseline, ties kept": Objective(always(ranked), ties=True),
    "ordinal": Objective(Ordinal, ties=True),
    "ordinal, ties dropped": Objective(Ordinal),
    "margin": Objective(always(ranked), [adaptive_margin]),
    "soft label": Objective(always(ranked), [soft_label]),
    "soft label + margin": Objective(always(ranked), [soft_label, adaptive_margin]),
    "scaled": Objective(always(ranked), [weight]),
    "scaled 1, 3, 10": Objective(always(ranked), [partial(weight, of_level=[1, 3, 10])]),
    "ResponseRank": Objective(always(response_rank)),
    "trimmed": Objective(always(trimmed)),
    "symmetric": Objective(always(symmetric)),
}


def train(made: World, objective: Objective, seed: int, rate: float = RATE) -> dict[str, float]:
    """Train one linear reward model; its clean accuracy, and the correlation of its margins with those of gold."""
    level = made.level
    turn = torch.where(level < 0, -1.0, 1.0)  # the preferred response is chosen
    kept = slice(None) if objective.ties else level != 0
    pairs, level = (made.pairs * turn[:, None])[kept], (level * turn)[kept]
    strength = level * (3 / made.num_levels)  # on one scale
    labels = np.where(strength.numpy() == 0, 0.5, 1.0)
    plain = Targets.of(labels, np.zeros(len(labels)), np.ones(len(labels)))
    known = Strength.of(strength.double().numpy(), np.zeros(len(strength)), np.full(len(strength), np.nan))
    treated = treat(known, plain, objective.treatments)
    columns = {
        name: torch.tensor(getattr(treated, name), dtype=torch.float32) for name in ("label", "margin", "weight")
    } | {"level": level}
    reward = torch.nn.Parameter(torch.zeros(pairs.shape[1]))
    loss = objective.loss(made.num_levels)
    parameters = [reward, *(loss.thresholds.parameters() if isinstance(loss, Ordinal) else ())]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, made.steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(made.steps):
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
    parser.add_argument("--people", type=Path, help="a folder of UKPConvArg1, in place of made pairs")
    parser.add_argument("--minilm", type=Path, help="a folder of all-MiniLM-L6-v2, for --people")
    parser.add_argument("--rates", type=float, nargs="+", default=PEOPLE_RATES, help="to choose from, for --people")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    named = "objectives_linear_people" if arguments.people else "objectives_linear"
    out = arguments.out or Path(f"benchmarks/results/{named}.json")
    found: dict[str, Any] = {}
    if arguments.people:
        folds = debates(arguments.people, arguments.minilm)
        found["people"] = compared({name: lambda fold=fold: fold for name, fold in folds.items()}, arguments.rates)
    else:
        for condition, options in CONDITIONS.items():
            makers = {
                seed: partial(world, seed, arguments.pairs, arguments.noise, **options)
                for seed in range(arguments.seeds)
            }
            found[condition] = compared(makers, [RATE])
    for condition, objectives in found.items():
        print(f"\n{condition}: accuracy, and its difference to the baseline")
        for name, one in objectives.items():
            low, high = one["difference"]["low"], one["difference"]["high"]
            told = f"{one['difference']['mean']:+.4f} [{low:+.4f}, {high:+.4f}] {one['difference']['verdict']}"
            print(f"{name:24} {one['accuracy']:.4f}   {told if name != 'baseline' else ''}")
    blocks = len(next(iter(found["people"].values()))["by_seed"]) if arguments.people else arguments.seeds
    out.write_text(
        json.dumps({**origin(torch, np), "seeds": blocks, "found": found}, indent=1) + "\n", encoding="utf-8"
    )


def compared(makers: Mapping[Block, Callable[[], World]], rates: Sequence[float]) -> dict[str, Any]:
    """Every objective in each of the worlds, at its rate of the best mean in the others, and the paired difference."""
    values: dict[str, dict[float, dict[Block, dict[str, float]]]] = {
        name: {rate: {} for rate in rates} for name in OBJECTIVES
    }
    for seed, (block, make) in enumerate(makers.items()):
        made = make()
        for name, objective in OBJECTIVES.items():
            for rate in rates:
                values[name][rate][block] = train(made, objective, seed, rate)
    chosen = {
        name: {block: of_rates[best(of_rates, block)][block] for block in makers} for name, of_rates in values.items()
    }
    return {
        name: summary(of_blocks, chosen["baseline"])
        | {
            "by_rate": {
                f"{rate:g}": float(np.mean([one["accuracy"] for one in of_rate.values()]))
                for rate, of_rate in values[name].items()
            }
        }
        for name, of_blocks in chosen.items()
    }


def best(of_rates: Mapping[float, Mapping[Block, dict[str, float]]], block: Block) -> float:
    """The rate of the highest mean accuracy over all worlds but this one."""
    means = {
        rate: np.mean([one["accuracy"] for other, one in of_rate.items() if other != block] or [0.0])
        for rate, of_rate in of_rates.items()
    }
    return max(means, key=lambda rate: means[rate])


def summary(values: dict[Block, dict[str, float]], baseline: dict[Block, dict[str, float]]) -> dict[str, Any]:
    """Mean accuracy and correlation, the accuracy of each world, and the paired difference to the baseline."""
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
        "by_seed": [round(value, 5) for value in accuracy.values()],
    }


if __name__ == "__main__":
    main()
