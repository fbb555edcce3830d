"""A shift that a reward model makes itself, and what repairs it: the best of n responses by its own rewards.

    lightning-rm train experiment=sft data.module.val=null data.module.test=null data.val_fraction=0 logger=csv
    python benchmarks/shift.py --worlds 0 1 2 --seeds 0
    python benchmarks/shift.py --rounds 3 --worlds 0 1 2 --seeds 0
    python benchmarks/shift_table.py runs/shift

A first reward model, trained on the made world's pairs, makes the policy: of n base responses it says the one with the
highest reward. Every row then trains a model anew from the same SFT model, on as many labels, and is measured

    on groups of five responses of that policy, n = 4, 16 and 64: how far its rewards order them as gold does;
    as the next policy's maker: gold of the best of n base responses by its own rewards, and how far it orders those.

`headroom` trains on pairs of the policy alone: the most that labels of the target are worth. Fresh labels and response
groups are of the best of 16, of the training prompts; nothing that is measured was trained on. Voters are five models
that differ in their seed, the first of them the baseline; for pairs of which a part is fresh they are ten heads on one
backbone, trained on these pairs. Models of 0.1M weights, one core; what is done already is kept, row by row.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from common import origin
from numpy.typing import NDArray
from training import Pairs, lightning_trainer

from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import GroupRow, Message, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.digests import key_digest
from lightning_rm.drafts import draft_of
from lightning_rm.evaluation.best_of_n import best_of_n
from lightning_rm.losses import difference_loss
from lightning_rm.metrics.groups import group_statistics, summarize_groups
from lightning_rm.models.ensembles.aggregate import aggregate
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.ensembles.warm import average_weights
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.ascent import Ascent, gradient_of, squared_norm
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.contrast import SimCSE
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.optimization import warmup_schedule
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.rlhf.best_of import best_of_groups, num_words
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.load import load_model
from lightning_rm.strength import Treatment, adaptive_margin, flip, label_smoothing, soft_label

Floats = NDArray[np.float64]
Ids = list[list[int]]
Judge = Callable[[Ids], Floats]
"""From token sequences to their rewards."""

POLICY_N = (4, 16, 64)
TRAINED_N, TRAINED_K = 16, 4
"""What is fresh, and what MetaRM reads: groups of four of the best of 16, from 64 samples a prompt."""
TEST_K = 5
GAPS = (0.0, 0.5, 1.0, 2.0, np.inf)
"""Accuracy on the policy's responses is given by how far two of them are apart in gold."""
NUM_VOTERS = 5
ASCENT = 0.003
"""Of MetaRM's step, times the norm of the weights: the paper's eta moves none of these models."""
ROWS = (
    "baseline",
    "headroom",
    "flip",
    "fresh_33",
    "fresh_33_disputed",
    "flip_fresh",
    "ensemble_mean",
    "meta_up",
    "meta_up_above",
    "mean_minus_variance",
    "warm",
    "distilled",
    "fresh_10",
    "fresh_50",
    "meta_down",
    "soft_label_margin",
    "simcse",
    "soft_label",
    "flip_negative",
)
ROUNDS = ("baseline", "fresh_33", "flip_fresh")
"""What is followed over rounds, each method with the policy that its own latest model makes."""


class World:
    """One made world and seed: its pairs, its samples, and what is trained in it.

    Args:
        arguments: of the command line.
        world: of pairs, prompts, responses and labels.
        seed: of training: order of the pairs.
    """

    def __init__(self, arguments: argparse.Namespace, world: int, seed: int) -> None:
        self.arguments, self.world, self.seed = arguments, world, seed
        self.folder: Path = arguments.folder / f"{world}-{seed}"
        self.tokenizer = load_tokenizer(arguments.start)
        self.annotator = Annotator(arguments.noise, length_bias=0.0)
        self.pairs = list(SyntheticSource(arguments.pairs, noise=arguments.noise, length_bias=0.0, seed=world))
        self._kept: dict[str, Any] = {}

    # What is trained

    def new(self) -> RewardModel:
        return RewardModel.from_pretrained(self.arguments.start, tokenizer=self.tokenizer, new_head=True, head_seed=0)

    def train(
        self,
        name: str,
        pairs: Sequence[PairRow],
        number: int = 1,
        treatments: Sequence[Treatment] = (),
        module: Callable[..., PairwiseRM] = StrengthAwareRM,
        responses: Sequence[GroupRow] = (),
        members: bool = False,
    ) -> AnyRewardModel:
        """Return the model of this name: trained, or as it was kept.

        Args:
            name: of its folder.
            pairs: to train on.
            number: of the model among those of one row: with the seed it decides the order of the pairs.
            treatments: of the pairs by their strength.
            module: from model, optimizer and schedule to the method.
            responses: of the policy, for MetaRM.
            members: whether ten heads are trained on one backbone.
        """
        if name in self._kept:
            return self._kept[name]
        folder = self.folder / "models" / name
        if not (folder / "done").exists():
            seed = 100 * self.seed + number
            L.seed_everything(seed, verbose=False)
            model = MemberRewardModel.of(self.new()) if members else self.new()
            optimizer = partial(torch.optim.AdamW, lr=self.arguments.lr, weight_decay=0.01)
            method = module(model, optimizer, scheduler=partial(warmup_schedule, name="linear", warmup=0.1))
            data = PreferenceDataModule(
                self.tokenizer,
                train=Pairs(list(pairs)),
                reading=model.reading,
                max_tokens=256,
                batch_pairs=32,
                seed=seed,
                cache_dir=self.folder / "cache",
                treatments=treatments,
                responses=Groups(responses) if responses else None,
                batch_groups=16,
            )
            lightning_trainer(False, max_epochs=self.arguments.epochs, limit_val_batches=0).fit(method, data)
            method.model.save_pretrained(folder, self.tokenizer)
            (folder / "done").touch()
        self._kept[name] = load_model(folder, tokenizer=self.tokenizer).model
        return self._kept[name]

    def voters(self) -> list[AnyRewardModel]:
        """Five models that differ in their seed; the first is the baseline."""
        return [
            self.train("baseline" if number == 1 else f"voter_{number}", self.pairs, number)
            for number in range(1, NUM_VOTERS + 1)
        ]

    # What is said

    def ids(self, rows: Sequence[GroupRow]) -> Ids:
        """The tokens of every response with its prompt, row after row."""
        return [self._encode(row.prompt, response) for row in rows for response in row.responses]

    def _encode(self, prompt: Sequence[Message], response: Sequence[Message]) -> list[int]:
        found: Any = self.tokenizer.apply_chat_template([*map(dict, prompt), *map(dict, response)], return_dict=False)
        return found

    def margins(self, judge: Judge, pairs: Sequence[PairRow]) -> Floats:
        chosen, rejected = ([self._encode(p.prompt, getattr(p, s)) for p in pairs] for s in ("chosen", "rejected"))
        return judge(chosen) - judge(rejected)

    @cached_property
    def train_samples(self) -> tuple[list[GroupRow], Ids]:
        """Base responses to prompts of training."""
        rows = list(SyntheticGroups(self.arguments.prompts, k=TRAINED_N * TRAINED_K, seed=self.world))
        return rows, self.ids(rows)

    @cached_property
    def test_samples(self) -> tuple[list[GroupRow], Ids]:
        rows = list(
            SyntheticGroups(self.arguments.test_prompts, k=TEST_K * max(POLICY_N), split="test", seed=self.world)
        )
        return rows, self.ids(rows)

    @cached_property
    def test_pairs(self) -> list[PairRow]:
        return list(SyntheticSource(1000, split="test", clean_labels=True, seed=self.world))

    def policy(self, name: str, judge: Judge) -> tuple[list[GroupRow], dict[int, list[GroupRow]]]:
        """What the policy of a model says: groups to train on, and by n groups to measure on. Rewards are kept."""
        rows, ids = self.train_samples
        tests, test_ids = self.test_samples
        path = self.folder / "rewards" / f"{name}.npz"
        if not path.exists():
            with draft_of(path) as draft, draft.open("wb") as file:
                np.savez(file, train=judge(ids), test=judge(test_ids))
        kept = np.load(path)
        measured = {n: best_of_groups(tests, kept["test"].reshape(len(tests), -1), n, TEST_K) for n in POLICY_N}
        return best_of_groups(rows, kept["train"].reshape(len(rows), -1), TRAINED_N, TRAINED_K), measured

    @cached_property
    def first(self) -> tuple[list[GroupRow], dict[int, list[GroupRow]]]:
        """The policy of the first model."""
        return self.policy("first", judge_of(self.train("first", self.pairs, 0)))

    def candidates(self, groups: Sequence[GroupRow]) -> list[PairRow]:
        """Every two of a group's responses that differ in gold, labelled by the annotator, in random order."""
        found: list[PairRow] = []
        for row in groups:
            for a, b in combinations(range(len(row.gold)), 2):
                if row.gold[a] == row.gold[b]:
                    continue
                margin = row.gold[a] - row.gold[b]
                longer = num_words(row.responses[a]) - num_words(row.responses[b])
                name = f"{row.id}-{a}{b}"
                if not self.annotator.prefers_first(margin, longer, Draws("fresh", self.world, name)):
                    a, b, margin = b, a, -margin
                found.append(
                    PairRow(
                        row.prompt,
                        row.responses[a],
                        row.responses[b],
                        id=name,
                        prompt_id=row.prompt_id,
                        gold_margin=round(margin, 6),
                        clean=margin > 0,
                    )
                )
        order = np.random.default_rng(self.world).permutation(len(found))
        return [found[place] for place in order.tolist()]

    def mixed(self, share: float, groups: Sequence[GroupRow], disputed: bool = False) -> list[PairRow]:
        """As many pairs as ever, a share of them fresh: at random, or those on which the voters' margins spread most."""
        fresh, num = self.candidates(groups), round(share * len(self.pairs))
        if len(fresh) < num:
            raise ValueError(f"{num} fresh pairs were asked for and there are {len(fresh)}: more --prompts")
        if disputed:
            votes = [self.margins(judge_of(voter), fresh) for voter in self.voters()]
            fresh = [fresh[place] for place in np.argsort(-np.std(votes, axis=0), kind="stable").tolist()]
        return self.pairs[: len(self.pairs) - num] + fresh[:num]

    def annotated(self, pairs: Sequence[PairRow], judges: Sequence[Judge]) -> list[PairRow]:
        votes = np.stack([self.margins(judge, pairs) for judge in judges], axis=1)
        return with_votes(pairs, votes)

    def annotated_by_heads(self, name: str, pairs: Sequence[PairRow]) -> list[PairRow]:
        """Strengths of ten heads on one backbone, trained on these pairs."""
        model = self.train(f"{name}_heads", pairs, 0, module=VotersRM, members=True)

        def each(ids: Ids) -> Floats:
            return score_sequences(model, ids).astype(np.float64)

        return with_votes(pairs, self.margins(each, pairs))

    # The rows

    def row(self, name: str) -> Judge:
        """What a row's model says."""
        tenth, groups = partial(flip, below_quantile=0.1), self.first[0]
        if name in ("ensemble_mean", "mean_minus_variance"):
            return ensemble(self.voters(), name.removeprefix("ensemble_"), self.ids_of_pairs)
        if name == "warm":
            return judge_of(average_weights(self.voters()))
        if name in ("flip", "flip_negative", "soft_label", "soft_label_margin"):
            treatments: dict[str, list[Treatment]] = {
                "flip": [tenth],
                "flip_negative": [partial(flip, below_mean=0.0)],
                "soft_label": [soft_label],
                "soft_label_margin": [partial(label_smoothing, alpha=0.2, pairs="negative"), adaptive_margin],
            }
            pairs = self.annotated(self.pairs, [judge_of(voter) for voter in self.voters()])
            return judge_of(self.train(name, pairs, treatments=treatments[name]))
        if name == "baseline":
            return judge_of(self.train(name, self.pairs))
        if name == "headroom":
            return judge_of(self.train(name, self.mixed(1.0, groups)))
        if name.startswith("fresh_"):
            share = {"10": 0.1, "33": 1 / 3, "50": 0.5}[name.split("_")[1]]
            return judge_of(self.train(name, self.mixed(share, groups, name.endswith("disputed"))))
        if name == "flip_fresh":
            pairs = self.annotated_by_heads(name, self.mixed(1 / 3, groups))
            return judge_of(self.train(name, pairs, treatments=[tenth]))
        if name == "distilled":
            unlabelled = self.mixed(1 / 3, groups)
            pairs = self.annotated(unlabelled, [judge_of(voter) for voter in self.voters()])
            return judge_of(self.train(name, pairs, treatments=[soft_label]))
        if name == "simcse":
            contrast = partial(SimCSE, temperature=0.2)
            method = partial(ContrastiveRM, contrast=contrast, beta=0.1, dropout_at="embeddings")
            return judge_of(self.train(name, self.pairs, module=method))
        if name in ("meta_up", "meta_down", "meta_up_above"):
            rate = -ASCENT if name == "meta_down" else ASCENT
            method = partial(MetaRM, ascent_lr=rate, ascent_scale="relative")
            theta = self.train(name.removesuffix("_above"), self.pairs, module=method, responses=groups)
            return above(theta, self.ids(groups[:320])) if name.endswith("_above") else judge_of(theta)
        raise ValueError(f"{name} is not a row; choose among {', '.join(ROWS)}")

    @cached_property
    def ids_of_pairs(self) -> Ids:
        return [self._encode(pair.prompt, pair.chosen) for pair in self.pairs[:500]]

    def measure(self, judge: Judge, policy: dict[int, list[GroupRow]] | None = None) -> dict[str, Any]:
        """The figures of one row."""
        margins = self.margins(judge, self.test_pairs)
        found: dict[str, Any] = {"clean": float((margins > 0).mean())}
        for n, groups in (policy or self.first[1]).items():
            found[f"policy_{n}"] = on_groups(judge(self.ids(groups)).reshape(len(groups), -1), groups)
        rows, ids = self.test_samples
        most, all_n = max(POLICY_N), np.arange(len(rows) * TEST_K * max(POLICY_N)).reshape(len(rows), -1)
        own = judge([ids[place] for place in all_n[:, :most].ravel().tolist()]).reshape(len(rows), most)
        gold = np.array([row.gold[:most] for row in rows])
        for what, values in (("gold", gold), ("proxy", own)):
            curve = best_of_n(own, values).mean(axis=0)
            found[what] = {str(n): float(curve[n - 1]) for n in (1, *POLICY_N)}
        mine = best_of_groups([row.only(range(most)) for row in rows], own, TRAINED_N, TRAINED_K)
        found["own"] = on_groups(judge(self.ids(mine)).reshape(len(mine), -1), mine)
        return found


class Groups(Pairs):
    """Groups of responses: a `GroupSource`."""

    def __init__(self, rows: Sequence[GroupRow]) -> None:
        object.__setattr__(self, "rows", list(rows))

    def fingerprint(self) -> str:
        return key_digest("groups", [[row.id, *(turn[-1]["content"] for turn in row.responses)] for row in self.rows])


def with_votes(pairs: Sequence[PairRow], votes: Floats) -> list[PairRow]:
    """The pairs with the votes (P, M) and what is made of them."""
    return [
        replace(pair, votes=tuple(vote), strength_mean=float(np.mean(vote)), strength_std=float(np.std(vote)))
        for pair, vote in zip(pairs, votes.tolist(), strict=True)
    ]


def judge_of(model: AnyRewardModel) -> Judge:
    return lambda ids: score_sequences(model, ids)[:, 0].astype(np.float64)


def ensemble(voters: Sequence[AnyRewardModel], how: Any, zero: Ids) -> Judge:
    """An aggregate of models, each with its mean over the given sequences for its zero."""
    judges = [judge_of(voter) for voter in voters]
    offsets = [judge(zero).mean() for judge in judges]

    def judge(ids: Ids) -> Floats:
        each = np.stack([judge(ids) - offset for judge, offset in zip(judges, offsets, strict=True)])
        return aggregate(torch.from_numpy(each), how).numpy()

    return judge


def above(model: AnyRewardModel, ids: Ids) -> Judge:
    """The model a step up J from where training has left it, as MetaRM trains it: theta'."""
    parameters = list(model.parameters())
    batches = [ids[start : start + 64] for start in range(0, len(ids), 64)]
    for batch in batches:
        samples = [Sample(batch[place : place + TRAINED_K]) for place in range(0, len(batch), TRAINED_K)]
        reward = model(LAYOUTS["padded"](samples, model.read_at, model.pad_id)).reward
        (difference_loss(reward, torch.ones_like(reward, dtype=torch.bool)) / len(batches)).backward()
    gradients = [gradient_of(parameter) for parameter in parameters]
    model.zero_grad()
    length = squared_norm(parameters).sqrt() / squared_norm(gradients).sqrt()

    def judge(sequences: Ids) -> Floats:
        ascent = Ascent(parameters)
        ascent.start(gradients, ASCENT * length)
        try:
            return judge_of(model)(sequences)
        finally:
            ascent.forget()

    return judge


def on_groups(rewards: Floats, groups: Sequence[GroupRow]) -> dict[str, float]:
    """How rewards (P, k) tell responses apart: their metrics, and accuracy by the distance of two in gold."""
    gold = np.array([row.gold for row in groups])
    columns = [torch.from_numpy(values.T.copy()) for values in (rewards, gold)]
    sums = group_statistics(columns[0], torch.ones_like(columns[0], dtype=torch.bool), columns[1])
    found = {name: float(value) for name, value in summarize_groups(type(sums)(*(s.sum() for s in sums))).items()}
    first, second = np.triu_indices(gold.shape[1], 1)
    gap, said = gold[:, first] - gold[:, second], rewards[:, first] - rewards[:, second]
    credit = 0.5 + 0.5 * np.sign(said) * np.sign(gap)
    for low, high in zip(GAPS, GAPS[1:], strict=False):
        inside = (np.abs(gap) > low) & (np.abs(gap) <= high)
        found[f"accuracy_above_{low:g}"] = float(credit[inside].mean()) if inside.any() else float("nan")
        found[f"pairs_above_{low:g}"] = int(inside.sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/sft/model/last", help="the SFT model that all begin from")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
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
    for seed in arguments.seeds:
        for number in arguments.worlds:
            run(World(arguments, number, seed), arguments)


def run(world: World, arguments: argparse.Namespace) -> None:
    """What is missing of a world and seed, written after every row."""
    path: Path = world.folder / ("rounds.json" if arguments.rounds else "rows.json")
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    settings = {
        name: getattr(arguments, name) for name in ("pairs", "epochs", "lr", "noise", "prompts", "test_prompts")
    }
    found = kept or {**origin(torch, L), "world": world.world, "seed": world.seed, "settings": settings, "rows": {}}
    if found["settings"] != settings:
        raise ValueError(f"{path} is of other settings: {found['settings']}; give another --folder")
    names = [f"{name}_{turn}" for turn in range(1, arguments.rounds + 1) for name in ROUNDS] or arguments.rows
    for name in names:
        if name in found["rows"]:
            continue
        start = time.process_time()
        found["rows"][name] = of_round(world, name) if arguments.rounds else world.measure(world.row(name))
        found["rows"][name]["seconds"] = round(time.process_time() - start, 1)
        with draft_of(path) as draft:
            draft.write_text(json.dumps(found, indent=1) + "\n")
        row = found["rows"][name]
        print(
            f"world {world.world} seed {world.seed} {name:20} clean {row['clean']:.3f} "
            f"correlation {row['policy_64'].get('gold_correlation', float('nan')):+.3f} "
            f"gold {row['gold']['64']:.3f} own {row['own'].get('gold_correlation', float('nan')):+.3f} "
            f"{row['seconds']:.0f} s",
            flush=True,
        )


def of_round(world: World, name: str) -> dict[str, Any]:
    """The figures of `fresh_33_2`, fresh_33 in the second round: labels are fresh from the policy of its first model."""
    method, _, turn = name.rpartition("_")
    if turn == "1":
        return world.measure(world.row(method))
    before = method if turn == "2" else f"{method}_{int(turn) - 1}"
    groups, measured = world.policy(before, judge_of(world.train(before, world.pairs)))  # which is kept
    pairs = world.pairs if method == "baseline" else world.mixed(1 / 3, groups)
    if method == "flip_fresh":
        pairs = world.annotated_by_heads(name, pairs)
    treatments = [partial(flip, below_quantile=0.1)] if method == "flip_fresh" else []
    return world.measure(judge_of(world.train(name, pairs, 10 + int(turn), treatments)), measured)


if __name__ == "__main__":
    main()
