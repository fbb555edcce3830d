"""The policies that reward models make of a world: the best of n base responses by their own rewards, and measures.

It knows samples, gold rewards and judges of them; not how any of these was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch

from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.drafts import draft_of
from lightning_rm.evaluation.best_of_n import best_of_n
from lightning_rm.losses import difference_loss
from lightning_rm.metrics.groups import GroupSums, group_statistics, summarize_groups
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.modules.ascent import Ascent, gradient_of
from lightning_rm.modules.gradients import squared_norm
from lightning_rm.rlhf.best_of import best_of_groups, num_words
from paper_parts.world import Floats, Ids, Judge, World, judge_of

POLICY_N = (4, 16, 64)
TRAINED_N, TRAINED_K = 16, 4
"""What is fresh, and what MetaRM reads: groups of four of the best of 16, from 64 samples a prompt."""
TEST_K = 5
GAPS = (0.0, 0.5, 1.0, 2.0, np.inf)
"""Accuracy on the policy's responses is given by how far two of them are apart in gold."""

Measured = Mapping[int, Sequence[GroupRow]]
"""n -> groups of responses of the best of n."""


class Policies:
    """Base responses of a world, and the policies that models make of them.

    Args:
        world: whose prompts are answered.
        prompts: of training; a policy may answer the first of them alone.
        test_prompts: of measuring, no prompt in common with those.
    """

    def __init__(self, world: World, prompts: int, test_prompts: int) -> None:
        self.world, self.prompts, self.test_prompts = world, prompts, test_prompts

    @cached_property
    def train_samples(self) -> tuple[list[GroupRow], Ids]:
        rows = list(SyntheticGroups(self.prompts, k=TRAINED_N * TRAINED_K, seed=self.world.world))
        return rows, self.world.ids(rows)

    @cached_property
    def test_samples(self) -> tuple[list[GroupRow], Ids]:
        rows = list(SyntheticGroups(self.test_prompts, k=TEST_K * max(POLICY_N), split="test", seed=self.world.world))
        return rows, self.world.ids(rows)

    def trained_on(self, name: str, judge: Judge, prompts: int | None = None) -> list[GroupRow]:
        """What the policy of a model says to the first prompts of training, None for all: groups to train on."""
        rows, ids = self.train_samples
        rows, size = rows[:prompts], len(ids) // len(rows)
        rewards = self._kept(f"{name}_train", judge, ids[: len(rows) * size])
        return best_of_groups(rows, rewards.reshape(len(rows), size), TRAINED_N, TRAINED_K)

    def measured_on(self, name: str, judge: Judge) -> Measured:
        """What the same policy says to the prompts of measuring, by n."""
        rows, ids = self.test_samples
        rewards = self._kept(f"{name}_test", judge, ids).reshape(len(rows), -1)
        return {n: best_of_groups(rows, rewards, n, TEST_K) for n in POLICY_N}

    def _kept(self, name: str, judge: Judge, ids: Ids) -> Floats:
        """The rewards of a judge, which is asked for those alone that no file has."""
        path = self.world.folder / "rewards" / f"{name}.npy"
        kept: Floats = np.load(path) if path.exists() else np.empty(0)
        if len(kept) < len(ids):
            kept = np.concatenate([kept, judge(ids[len(kept) :])])
            with draft_of(path) as draft, draft.open("wb") as file:
                np.save(file, kept)
        return kept[: len(ids)]

    @cached_property
    def first_judge(self) -> Judge:
        """The first model."""
        return judge_of(self.world.train("first", self.world.pairs, 0))

    @cached_property
    def first_groups(self) -> list[GroupRow]:
        """What its policy says to the prompts of training."""
        return self.trained_on("first", self.first_judge)

    @cached_property
    def first_measured(self) -> Measured:
        """What its policy says to the prompts of measuring."""
        return self.measured_on("first", self.first_judge)

    def candidates(self, groups: Sequence[GroupRow]) -> list[PairRow]:
        """Every two of a group's responses that differ in gold, labelled by the annotator, in random order."""
        world = self.world
        found: list[PairRow] = []
        for row in groups:
            for a, b in combinations(range(len(row.gold)), 2):
                if row.gold[a] == row.gold[b]:
                    continue
                first, second, margin = row.responses[a], row.responses[b], row.gold[a] - row.gold[b]
                name = f"{row.id}-{a}{b}"
                longer = num_words(first) - num_words(second)
                if not world.annotator.prefers_first(margin, longer, Draws("fresh", world.world, name)):
                    first, second, margin = second, first, -margin
                pair = PairRow(row.prompt, first, second, id=name, prompt_id=row.prompt_id)
                found.append(replace(pair, gold_margin=round(margin, 6), clean=margin > 0))
        order = np.random.default_rng(world.world).permutation(len(found))
        return [found[place] for place in order.tolist()]

    def mixed(self, share: float, groups: Sequence[GroupRow], disputed: bool = False) -> list[PairRow]:
        """As many pairs as ever, a share of them fresh: at random, or those on which the voters' margins spread most.

        Raises:
            ValueError: if there are fewer candidates.
        """
        pairs = self.world.pairs
        fresh, num = self.candidates(groups), round(share * len(pairs))
        if len(fresh) < num:
            raise ValueError(f"{num} fresh pairs were asked for and there are {len(fresh)}: more --prompts")
        if disputed:
            votes = [self.world.margins(judge_of(voter), fresh) for voter in self.world.voters()]
            fresh = [fresh[place] for place in np.argsort(-np.std(votes, axis=0), kind="stable").tolist()]
        return [*pairs[: len(pairs) - num], *fresh[:num]]

    def measure(self, judge: Judge, policy: Measured | None = None) -> dict[str, Any]:
        """The figures of one judge: on clean pairs, on the policy's responses, and as the next policy's maker."""
        found: dict[str, Any] = {"clean": self.world.accuracy(judge)}
        for n, groups in (policy or self.first_measured).items():
            found[f"policy_{n}"] = on_groups(self._rewards(judge, groups), groups)
        rows, ids = self.test_samples
        most, size = max(POLICY_N), len(ids) // len(rows)
        own = judge([one for start in range(0, len(ids), size) for one in ids[start : start + most]])
        own, gold = own.reshape(len(rows), most), np.array([row.gold[:most] for row in rows])
        for what, values in (("gold", gold), ("proxy", own)):
            curve = best_of_n(own, values).mean(axis=0)
            found[what] = {str(n): float(curve[n - 1]) for n in (1, *POLICY_N)}
        mine = best_of_groups([row.only(range(most)) for row in rows], own, TRAINED_N, TRAINED_K)
        found["own"] = on_groups(self._rewards(judge, mine), mine)
        return found

    def _rewards(self, judge: Judge, groups: Sequence[GroupRow]) -> Floats:
        return judge(self.world.ids(groups)).reshape(len(groups), -1)


def on_groups(rewards: Floats, groups: Sequence[GroupRow]) -> dict[str, float]:
    """How rewards (P, k) tell responses apart: their metrics, and accuracy by the distance of two in gold."""
    gold = np.array([row.gold for row in groups])
    said, worth = (torch.from_numpy(values.T.copy()) for values in (rewards, gold))
    each = group_statistics(said, torch.ones_like(said, dtype=torch.bool), worth)
    found = {name: float(value) for name, value in summarize_groups(GroupSums(*(part.sum() for part in each))).items()}
    first, second = np.triu_indices(gold.shape[1], 1)
    gap, margin = gold[:, first] - gold[:, second], rewards[:, first] - rewards[:, second]
    credit = 0.5 + 0.5 * np.sign(margin) * np.sign(gap)
    for low, high in pairwise(GAPS):
        inside = (np.abs(gap) > low) & (np.abs(gap) <= high)
        if inside.any():
            found[f"accuracy_above_{low:g}"] = float(credit[inside].mean())
        found[f"pairs_above_{low:g}"] = int(inside.sum())
    return found


def above(model: AnyRewardModel, ids: Ids, rate: float) -> Judge:
    """The model a step up J from where training has left it, as MetaRM trains it: theta'.

    Args:
        model: theta; it is left as it is.
        ids: responses of the policy, `TRAINED_K` a prompt, for the mean gradient of J.
        rate: of the step, times the norm of the weights.
    """
    parameters = list(model.parameters())
    batches = [ids[start : start + 16 * TRAINED_K] for start in range(0, len(ids), 16 * TRAINED_K)]
    for batch in batches:
        samples = [Sample(batch[place : place + TRAINED_K]) for place in range(0, len(batch), TRAINED_K)]
        reward = model(LAYOUTS["padded"](samples, model.read_at, model.pad_id)).reward
        (difference_loss(reward) / len(batches)).backward()
    gradients = [gradient_of(parameter) for parameter in parameters]
    model.zero_grad()
    length = squared_norm(parameters).sqrt() / squared_norm(gradients).sqrt()

    def judge(sequences: Ids) -> Floats:
        ascent = Ascent(parameters)
        ascent.start(gradients, rate * length)
        try:
            return judge_of(model)(sequences)
        finally:
            ascent.forget()

    return judge
