"""What objectives make of levels, noise and length: with the made world's decoder, and with MiniLM on what people say.

    lightning-rm train experiment=sft data.module.val=null data.module.test=null data.val_fraction=0 logger=csv
    python benchmarks/objectives_trained.py levels --seeds 0 1 2 3 4 5 6 7
    python benchmarks/objectives_trained.py members --seeds 0 1 2 3 4
    python benchmarks/objectives_trained.py centering --seeds 0 1 2 3 4 5 6 7
    python benchmarks/objectives_trained.py length --seeds 0 1 2 3 4 5 6 7
    python benchmarks/objectives_trained.py memorised --seeds $(seq 0 19)
    python benchmarks/objectives_trained.py people --start MINILM --folder ukp --seeds 0 1 2
    python benchmarks/paired.py benchmarks/results/objectives_trained_levels.json test/accuracy test/ood/accuracy

Every way of a study trains the same backbone on the same pairs, and the last weights are measured. On the made world a
seed is a world, with pairs, annotators and clean test sets of its own; of `people`, whose pairs are the same, it is the
order of the pairs, the dropout and the new head. What is done is written after every training, and a second call goes
on from there; one of other settings begins anew. The studies:

- `levels`: annotators say -3 to 3, ties among it, and about a quarter of what they say is turned round.
- `members`: ten heads on one backbone, and the time of two trainings: voting and flipping, or members that teach each
  other, held against a longer training.
- `centering`: what holds rewards near zero, by the spread of the lengths of features and by held-out families.
- `length`: annotators with a taste for length.
- `memorised`: 2,000 pairs, eight times over, so that wrong labels are learned by heart; what contrast does then beside
  two views without any. `test/seen` are those pairs with their labels, `test/seen_clean` with the right ones.
- `people`: UKPConvArg1, the three files that `benchmarks/data/ukp_convarg.py` writes; of five annotators a pair, so
  that levels are -5 to 5. The pairs of every third argument are trained on, 992 and 110 ties; with `--every 1` all
  8,838 and 980. Tested on three debates that are not in training.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import transformers
from common import origin
from fitting import fit

from lightning_rm.annotation.annotate import annotate
from lightning_rm.annotation.voters import Voter
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.sets import AnySource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrasted import ContrastFactory
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.odin import OdinRM
from lightning_rm.modules.optimization import warmup_schedule
from lightning_rm.modules.ordinal import OrdinalRM
from lightning_rm.modules.response_rank import ResponseRankRM
from lightning_rm.modules.robust import RobustRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.strength import Treatment, adaptive_margin, flip, levels, soft_label, weight

STRENGTH_OF_ALL = 3.0
"""The strength of a preference that all of UKPConvArg1's annotators share, on the scale of the made world's levels."""


BATCH_PAIRS = 32


class Way(NamedTuple):
    """How to train: a module but for model, optimizer and schedule; treatments; ties; epochs over those of the rest."""

    module: Callable[..., PairwiseRM] = BaselineRM
    treatments: tuple[Treatment, ...] = ()
    ties: bool = False
    longer: int = 1
    members: bool = False
    flipped: bool = False
    """Whether voters, trained first, are asked, and the treatments are of their strengths."""
    late: str = ""
    """The module's option that is a number of steps: a third of all."""


def of_levels(num_levels: int, scale: float) -> dict[str, Way]:
    """The ways that levels of preference are trained on, `scale` from strengths to levels."""
    return {
        "baseline": Way(),
        "ordinal": Way(
            partial(OrdinalRM, num_levels=num_levels), (partial(levels, num_levels=num_levels, scale=scale),), ties=True
        ),
        "soft label + margin": Way(StrengthAwareRM, (soft_label, adaptive_margin)),
        "ResponseRank": Way(ResponseRankRM),
        "margin": Way(StrengthAwareRM, (adaptive_margin,)),
        "scaled": Way(StrengthAwareRM, (weight,)),
        "baseline, ties kept": Way(ties=True),
    }


def of_views(model: RewardModel, *of_training: Any, contrast: ContrastFactory, beta: float) -> ContrastiveRM:
    """Two dropout masks a pair, .05 of the embeddings as in the paper, and a contrast of them."""
    optimizer, *others = of_training
    return ContrastiveRM(model, optimizer, contrast, *others, beta=beta, dropout_at="embeddings")


STUDIES: dict[str, dict[str, Way]] = {
    "levels": of_levels(3, 1.0) | {"trimmed": Way(partial(RobustRM, trim=0.25), late="trim_after")},
    "people": of_levels(5, 5 / STRENGTH_OF_ALL),
    "members": {
        "baseline": Way(),
        "baseline, twice as long": Way(longer=2),
        "vote, flip a tenth": Way(StrengthAwareRM, (partial(flip, below_quantile=0.1),), flipped=True),
        "vote, flip below 0": Way(StrengthAwareRM, (partial(flip, below_mean=0.0),), flipped=True),
        "ten heads, twice as long": Way(VotersRM, longer=2, members=True),
        "co-teaching, twice as long": Way(VotersRM, longer=2, members=True, late="co_teaching_after"),
    },
    "centering": {
        "baseline": Way(),
        "centering .01": Way(partial(BaselineRM, centering=0.01)),
        "batch sum-to-zero .001": Way(partial(BaselineRM, batch_centering=1e-3)),
        "batch sum-to-zero .01": Way(partial(BaselineRM, batch_centering=1e-2)),
    },
    "memorised": {
        "baseline": Way(),
        "two views": Way(partial(of_views, contrast=SimCSE, beta=0.0)),
        "SimCSE, light": Way(partial(of_views, contrast=partial(SimCSE, temperature=0.2), beta=0.1)),
        "SimCSE": Way(partial(of_views, contrast=SimCSE, beta=1.0)),
        "SwAV": Way(partial(of_views, contrast=SwAV, beta=0.1)),
    },
    "length": {
        "baseline": Way(),
        "ODIN": Way(OdinRM),
        "ODIN, weights .1": Way(partial(OdinRM, length_weight=0.1, orthogonal_weight=0.1)),
        "length penalty 1": Way(partial(BaselineRM, length_penalty=1.0)),
        "length penalty .1": Way(partial(BaselineRM, length_penalty=0.1)),
    },
}

WORLDS: dict[str, dict[str, Any]] = {
    "levels": {"noise": 0.235, "levels": 3},
    "members": {"noise": 0.235},
    "centering": {"noise": 0.1},
    "memorised": {"noise": 0.235},
    "length": {"noise": 0.1, "length_bias": 2.0},  # the longer response is chosen in 64 of 100
}


class Sets(NamedTuple):
    """What a seed is trained and tested on."""

    train: AnySource
    test: dict[str, AnySource]


def made(study: str, seed: int, options: argparse.Namespace) -> Sets:
    """A made world's pairs, and clean ones of the same and of other families of prompts."""
    annotator = WORLDS[study] | {"level_shift": options.level_shift, "random_levels": options.random_levels}
    train = SyntheticSource(options.pairs, seed=seed, **annotator)
    clean = partial(SyntheticSource, options.test_pairs, clean_labels=True, seed=seed)
    test: dict[str, AnySource] = {"test": clean(split="test"), "ood": clean(split="ood")}
    if study == "memorised":
        test |= {"seen": train, "seen_clean": SyntheticSource(options.pairs, clean_labels=True, seed=seed)}
    return Sets(train, test)


def people(options: argparse.Namespace) -> Sets:
    """UKPConvArg1: the pairs of some of its arguments, their ties, and the pairs of other debates."""

    def rows(name: str) -> list[dict[str, Any]]:
        lines = (options.folder / name).read_text(encoding="utf-8").splitlines()
        return [row_of(json.loads(line)) for line in lines]

    def is_kept(row: dict[str, Any]) -> bool:
        return all(zlib.crc32(row[side].encode()) % options.every == 0 for side in ("chosen", "rejected"))

    train = [row for name in ("train.jsonl", "ties.jsonl") for row in rows(name) if is_kept(row)]
    return Sets(train, {"test": rows("val.jsonl")})


def row_of(line: dict[str, Any]) -> dict[str, Any]:
    strength = STRENGTH_OF_ALL * line["strength"]
    names = ("prompt", "chosen", "rejected", "id", "prompt_id")
    return {name: line[name] for name in names} | {"strength_mean": strength, "tied": strength == 0}


class Study:
    """One study: its ways, and how one is trained and measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.is_made = options.study != "people"
        self.tokenizer = load_tokenizer(options.start)
        rates = {"lr": 1e-3} if self.is_made else {"lr": 1e-4}
        self.optimizer = partial(torch.optim.AdamW, weight_decay=0.01, fused=True, **rates)
        self.scheduler = partial(warmup_schedule, name="linear", warmup=0.1)
        self.head_lr = None if self.is_made else 1e-3

    def data(self, sets: Sets, way: Way, seed: int, reading: Any) -> PreferenceDataModule:
        return PreferenceDataModule(
            self.tokenizer,
            train=sets.train,
            test=sets.test,
            reading=reading,
            ties="keep" if way.ties else "drop",
            treatments=list(way.treatments),
            max_tokens=256 if self.is_made else 512,
            layout="padded" if self.is_made else "packed",
            order="length" if self.is_made else "prompt",
            batch_pairs=BATCH_PAIRS,
            eval_batch_pairs=None if self.is_made else 512,
            seed=0 if self.is_made else seed,
            cache_dir=self.options.cache,
        )

    def model(self, seed: int, members: bool = False) -> RewardModel | MemberRewardModel:
        model = RewardModel.from_pretrained(
            self.options.start, tokenizer=self.tokenizer, new_head=True, head_seed=0 if self.is_made else seed
        )
        return MemberRewardModel.of(model) if members else model

    def fit(self, way: Way, sets: Sets, seed: int) -> tuple[PairwiseRM, PreferenceDataModule]:
        model = self.model(seed, way.members)
        epochs = way.longer * self.options.epochs
        options = {way.late: epochs * self.options.pairs // BATCH_PAIRS // 3} if way.late else {}
        module = way.module(model, self.optimizer, self.scheduler, self.head_lr, **options)
        data = self.data(sets, way, seed, model.reading)
        fit(module, data, epochs, seed)
        return module, data

    def voted(self, sets: Sets, seed: int) -> Sets:
        """The same pairs with the votes of ten heads, which were trained on them."""
        folder = self.options.cache / f"votes-{self.options.study}-{seed}"
        if not (folder / "voted.parquet").exists():
            module, _ = self.fit(Way(VotersRM, members=True), sets, seed)
            module.model.save_pretrained(folder / "voters", self.tokenizer)
            voters, policy = [Voter("heads", folder / "voters")], TokenizePolicy(max_tokens=256)
            annotate(sets.train, voters, folder / "voted.parquet", policy, cache_dir=self.options.cache)
        return sets._replace(train=folder / "voted.parquet")

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train one way and measure it."""
        way = STUDIES[self.options.study][name]
        sets = made(self.options.study, seed, self.options) if self.is_made else people(self.options)
        start = time.process_time()
        module, data = self.fit(way, self.voted(sets, seed) if way.flipped else sets, seed)
        seconds = time.process_time() - start
        tester = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
        figures: dict[str, dict[str, float]] = {}
        for found in tester.test(module, data, verbose=False):
            for key, value in found.items():
                stage, _, metric = key.rpartition("/")
                if stage in ("test", *(f"test/{name}" for name in sets.test)) and metric in (
                    "accuracy",
                    "nll",
                    "length_correlation",
                    "length_accuracy",
                    "reward_mean",
                    "reward_std",
                ):
                    figures.setdefault(stage, {})[metric] = round(value, 5)
        figures["test"]["feature_norm_spread"] = round(norm_spread(module, data), 5)
        return {**figures, "cpu_seconds": round(seconds, 1)}


@torch.no_grad()
def norm_spread(module: PairwiseRM, data: PreferenceDataModule) -> float:
    """Standard deviation of the lengths of the features of the test pairs' responses, over their mean."""
    module.eval()
    norms = [module(batch).feature.norm(dim=-1)[:, batch.valid].flatten() for batch in data.test_dataloader()[0]]
    return float(torch.cat(norms).std() / torch.cat(norms).mean())


def resumed(out: Path, settings: dict[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What an earlier call has written under the same settings: way -> seed -> figures."""
    runs: dict[str, dict[str, Any]] = {}
    if out.exists():
        before = json.loads(out.read_text(encoding="utf-8"))
        if before["settings"] == settings:
            runs = before["runs"]
        else:
            print(f"{out} is of other settings and begins anew: {before['settings']}", flush=True)
    return {name: runs.get(name, {}) for name in [*runs, *names]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--start", default="runs/sft/model/last", help="the backbone that all begin from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--ways", nargs="+", help="some of the study's; all are the default")
    parser.add_argument("--pairs", type=int, help="of a made world: 6,000, 2,000 that are memorised")
    parser.add_argument("--test-pairs", type=int, default=1000, help="of each of a made world's test sets")
    parser.add_argument("--epochs", type=int, help="3 on the made world, 8 to memorise, 1 on UKPConvArg1")
    parser.add_argument("--level-shift", type=int, default=0, help="levels that annotators say too much")
    parser.add_argument("--random-levels", type=float, default=0.0, help="share of the levels that are drawn at random")
    parser.add_argument("--every", type=int, default=3, help="which of UKPConvArg1's arguments train: every third")
    parser.add_argument("--folder", type=Path, help="of UKPConvArg1's train, ties and val .jsonl")
    parser.add_argument("--cache", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    options.epochs = options.epochs or {"people": 1, "memorised": 8}.get(options.study, 3)
    options.pairs = options.pairs or {"memorised": 2000}.get(options.study, 6000)
    out = options.out or Path(f"benchmarks/results/objectives_trained_{options.study}.json")
    names = options.ways or list(STUDIES[options.study])
    of_study = ("every",) if options.study == "people" else ("pairs", "test_pairs", "level_shift", "random_levels")
    settings = {name: getattr(options, name) for name in ("study", "epochs", *of_study)}
    study = Study(options)
    runs = resumed(out, settings, names)
    for seed in options.seeds:
        for name in names:
            if str(seed) in runs[name]:
                continue
            runs[name][str(seed)] = study.run(name, seed)
            print(seed, name, json.dumps(runs[name][str(seed)]), flush=True)
            result = {**origin(torch, L, transformers), "settings": settings, "runs": runs}
            draft = out.with_name(f"{out.name}.draft")
            draft.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            draft.replace(out)


if __name__ == "__main__":
    main()
