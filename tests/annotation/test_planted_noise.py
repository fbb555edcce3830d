"""The paper's claim in small: voters trained on labels of which a quarter are wrong find out which."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lightning_rm.analysis.detection import detection
from lightning_rm.annotation.annotate import annotate
from lightning_rm.annotation.voters import Voter
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.strength import Strength
from tests.toy import Rows, toy_model, toy_trainer

FRUITS, ANIMALS = ("apple", "cherry", "kiwi", "pear"), ("crab", "fox", "frog", "lizard")


def planted(num_pairs: int) -> list[PairRow]:
    """Asked for fruits, fruits are better than animals; every fourth label says the opposite."""
    draw = random.Random(0)
    rows: list[PairRow] = []
    for number in range(num_pairs):
        good, bad = (" and ".join(draw.choice(words) for _ in range(3)) + "." for words in (FRUITS, ANIMALS))
        clean = number % 4 != 0
        chosen, rejected = (good, bad) if clean else (bad, good)
        rows.append(
            PairRow(
                prompt=({"role": "user", "content": "name three fruits."},),
                chosen=({"role": "assistant", "content": chosen},),
                rejected=({"role": "assistant", "content": rejected},),
                id=str(number),
                prompt_id=str(number),
                clean=clean,
            )
        )
    return rows


def test_the_weakest_are_the_wrong_ones(tmp_path: Path) -> None:
    rows = planted(320)
    voters: list[Voter] = []
    for seed in range(3):
        module = BaselineRM(toy_model(seed), partial(torch.optim.AdamW, lr=3e-3))
        data = PreferenceDataModule(
            world_tokenizer(), train=Rows(rows), batch_pairs=16, seed=seed, cache_dir=tmp_path / "cache"
        )
        toy_trainer(tmp_path, max_epochs=3).fit(module, data)
        module.model.save_pretrained(tmp_path / str(seed), world_tokenizer())
        voters.append(Voter(str(seed), tmp_path / str(seed)))
    votes = annotate(Rows(rows), voters, tmp_path / "strength.parquet", cache_dir=tmp_path / "cache")
    strength = Strength.of_votes(votes.votes)
    wrong = np.array([not row.clean for row in rows])
    assert wrong[strength.quantile < 0.1].mean() > 0.9
    assert detection(strength.mean, wrong).auroc > 0.95
    assert not (tmp_path / "strength.parquet.parts").exists()
    annotated = [row for row in FileSource(tmp_path / "strength.parquet") if isinstance(row, PairRow)]
    assert [row.strength_mean for row in annotated] == strength.mean.tolist()
