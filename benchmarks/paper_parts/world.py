"""One made world and seed: its pairs, and every model that is trained on them, each trained once and kept.

It knows how a model is trained and asked; not which experiment it is for, and no policy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from common import rotated
from filelock import FileLock
from numpy.typing import NDArray
from training import Pairs, lightning_trainer

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, GroupRow, Message, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.digests import key_digest
from lightning_rm.losses.temperature import fit_temperature, tempered_nll
from lightning_rm.models.ensembles.aggregate import Aggregate, aggregate
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.optimization import warmup_schedule
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.load import load_model
from lightning_rm.strength import Treatment
from lightning_rm.tokens import Reading

Floats = NDArray[np.float64]
Ids = list[list[int]]
Judge = Callable[[Ids], Floats]
"""From token sequences to their rewards."""


@dataclass(frozen=True)
class Settings:
    """What every model of a world has in common.

    Args:
        start: the folder of the SFT model that all begin from.
        pairs: labels that a model is trained on.
        epochs: over them.
        noise: share of labels that are turned round; .235 makes a quarter of them wrong.
        voters: M.
        lr: learning rate.
        batch_pairs: pairs a step.
        test_pairs: pairs of clean labels to measure on.
    """

    start: str
    pairs: int = 6000
    epochs: int = 3
    noise: float = 0.235
    voters: int = 5
    lr: float = 1e-3
    batch_pairs: int = 32
    test_pairs: int = 1000


class World:
    """One made world and seed.

    Args:
        settings: of all its models.
        folder: where models are kept; one that is there is not trained again.
        world: seed of pairs and labels.
        seed: of training: the order of the pairs.
        turn: the voter to begin with, so that processes that share a world train different ones.
    """

    def __init__(self, settings: Settings, folder: Path, world: int, seed: int, turn: int = 0) -> None:
        self.settings, self.folder, self.world, self.seed, self.turn = settings, folder, world, seed, turn
        self.tokenizer = load_tokenizer(settings.start)
        self.annotator = Annotator(settings.noise, length_bias=0.0)
        self.pairs = list(SyntheticSource(settings.pairs, noise=settings.noise, length_bias=0.0, seed=world))
        self._models: dict[str, AnyRewardModel] = {}
        self._ids: dict[str, list[int]] = {}

    @cached_property
    def test_pairs(self) -> list[PairRow]:
        return list(SyntheticSource(self.settings.test_pairs, split="test", clean_labels=True, seed=self.world))

    @cached_property
    def val_pairs(self) -> list[PairRow]:
        return list(SyntheticSource(self.settings.test_pairs, split="val", clean_labels=True, seed=self.world))

    def train(
        self,
        name: str,
        pairs: Sequence[PairRow],
        number: int = 1,
        treatments: Sequence[Treatment] = (),
        module: Callable[..., PairwiseRM] = StrengthAwareRM,
        responses: Sequence[GroupRow] = (),
        members: bool = False,
        epochs: int | None = None,
        callbacks: Sequence[L.Callback] = (),
    ) -> AnyRewardModel:
        """Return the model of this name: trained, or as it was kept.

        Args:
            name: of its folder.
            pairs: to train on.
            number: of the model among those of one kind: with the seed it decides the order of the pairs.
            treatments: of the pairs by their strength.
            module: from model, optimizer and schedule to the method.
            responses: of the policy, for MetaRM.
            members: whether ten heads are trained on one backbone.
            epochs: None for the settings'.
            callbacks: of the trainer; of a model that is kept already none is called.
        """
        seed = 100 * self.seed + number

        def trained() -> PairwiseRM:
            L.seed_everything(seed, verbose=False)
            method = self._method(module, members)
            data = self._data(pairs, method.model.reading, seed, treatments, responses)
            lasting = {"max_epochs": epochs or self.settings.epochs, "limit_val_batches": 0}
            lightning_trainer(False, callbacks, **lasting).fit(method, data)
            return method

        if name not in self._models:
            self._models[name] = self._kept(self.folder / "models" / name, trained)
        return self._models[name]

    def _kept(self, folder: Path, trained: Callable[[], PairwiseRM]) -> AnyRewardModel:
        """The model of a folder, where it is put unless it is there: another process may be at it for its own stage."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not (folder / "done").exists():
                trained().model.save_pretrained(folder, self.tokenizer)
                (folder / "done").touch()
        return load_model(folder, tokenizer=self.tokenizer).model

    def _method(self, module: Callable[..., PairwiseRM], members: bool) -> PairwiseRM:
        model = RewardModel.from_pretrained(self.settings.start, tokenizer=self.tokenizer, new_head=True, head_seed=0)
        optimizer = partial(torch.optim.AdamW, lr=self.settings.lr, weight_decay=0.01)
        scheduler = partial(warmup_schedule, name="linear", warmup=0.1)
        return module(MemberRewardModel.of(model) if members else model, optimizer, scheduler=scheduler)

    def _data(
        self,
        pairs: Sequence[PairRow],
        reading: Reading,
        seed: int,
        treatments: Sequence[Treatment],
        responses: Sequence[GroupRow],
    ) -> PreferenceDataModule:
        return PreferenceDataModule(
            self.tokenizer,
            train=Pairs(list(pairs)),
            reading=reading,
            max_tokens=256,
            batch_pairs=self.settings.batch_pairs,
            seed=seed,
            cache_dir=self.folder / "cache",
            treatments=treatments,
            responses=Groups(list(responses)) if responses else None,
            batch_groups=16,  # the paper's
        )

    def voters(self) -> list[AnyRewardModel]:
        """M models that differ in their seed; the first is the baseline."""
        names = {n: "baseline" if n == 1 else f"voter_{n}" for n in range(1, self.settings.voters + 1)}
        for number in rotated(list(names), self.turn):
            self.train(names[number], self.pairs, number)
        return [self.train(name, self.pairs, number) for number, name in names.items()]

    def annotated(self, pairs: Sequence[PairRow] | None = None) -> list[PairRow]:
        """The pairs with the votes of all voters; None for the world's, which these have seen, as the paper's have."""
        if pairs is None:
            return self._annotated
        return with_votes(pairs, np.stack([self.margins(judge_of(voter), pairs) for voter in self.voters()], axis=1))

    @cached_property
    def _annotated(self) -> list[PairRow]:
        """The world's pairs: a stage that has been trained on them changes none."""
        return self.annotated(self.pairs)

    def annotated_by_heads(self, name: str, pairs: Sequence[PairRow]) -> list[PairRow]:
        """The pairs with the votes of ten heads on one backbone, trained on these pairs."""
        model = self.train(f"{name}_heads", pairs, 0, module=VotersRM, members=True)
        return with_votes(pairs, self.margins(lambda ids: score_sequences(model, ids).astype(np.float64), pairs))

    def ids(self, rows: Sequence[GroupRow]) -> Ids:
        """The tokens of every response with its prompt, row after row."""
        return [self.encode(row.prompt, response) for row in rows for response in row.responses]

    def encode(self, prompt: Sequence[Message], response: Sequence[Message]) -> list[int]:
        conversation: Any = [*prompt, *response]
        key = json.dumps(conversation)  # every judge is asked of the same pairs
        if key not in self._ids:
            self._ids[key] = cast(list[int], self.tokenizer.apply_chat_template(conversation, return_dict=False))
        return self._ids[key]

    def margins(self, judge: Judge, pairs: Sequence[PairRow]) -> Floats:
        """(P,) rewards of chosen minus those of rejected, or (P, M) of M members."""
        chosen, rejected = ([self.encode(p.prompt, side) for p, side in sides] for sides in _sides(pairs))
        return judge(chosen) - judge(rejected)

    def accuracy(self, judge: Judge) -> float:
        """On the clean test pairs."""
        return float((self.margins(judge, self.test_pairs) > 0).mean())

    def nll(self, judge: Judge) -> float:
        """On the clean test pairs, after the temperature that suits as many validation pairs: scale does not count."""
        temperature = fit_temperature(*self._labelled(judge, self.val_pairs))
        return tempered_nll(*self._labelled(judge, self.test_pairs), temperature)

    def _labelled(self, judge: Judge, pairs: Sequence[PairRow]) -> tuple[torch.Tensor, torch.Tensor]:
        margin = torch.from_numpy(self.margins(judge, pairs))
        return margin, torch.ones_like(margin)


@dataclass(frozen=True)
class Groups:
    """Groups of responses in memory: a `GroupSource`."""

    rows: list[GroupRow]

    def fingerprint(self) -> str:
        return key_digest("groups", [asdict(row) for row in self.rows])

    def __iter__(self) -> Iterator[GroupRow | BadRow]:
        return iter(self.rows)


def _sides(pairs: Sequence[PairRow]) -> list[list[tuple[PairRow, Sequence[Message]]]]:
    return [[(pair, pair.chosen) for pair in pairs], [(pair, pair.rejected) for pair in pairs]]


def with_votes(pairs: Sequence[PairRow], votes: Floats) -> list[PairRow]:
    """The pairs with their votes (P, M) and the strength that these make."""
    return [
        replace(pair, votes=tuple(vote), strength_mean=math.fsum(vote) / len(vote), strength_std=float(np.std(vote)))
        for pair, vote in zip(pairs, votes.tolist(), strict=True)
    ]


def judge_of(model: AnyRewardModel) -> Judge:
    return lambda ids: score_sequences(model, ids)[:, 0].astype(np.float64)


def ensemble(models: Sequence[AnyRewardModel], how: Aggregate, zero: Ids) -> Judge:
    """An aggregate of models, each with its mean over the given sequences for its zero."""
    judges = [judge_of(model) for model in models]
    offsets = [judge(zero).mean() for judge in judges]

    def judge(ids: Ids) -> Floats:
        each = np.stack([judge(ids) - offset for judge, offset in zip(judges, offsets, strict=True)])
        return aggregate(torch.from_numpy(each), how).numpy()

    return judge
