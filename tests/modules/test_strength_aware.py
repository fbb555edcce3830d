from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_rm.batch import preference_batch
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.losses import first_rows
from lightning_rm.models.ensembles.bootstrap import bootstrap_weights
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.supervised import SupervisedLM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.strength import adaptive_margin, flip
from tests import reference
from tests.float64 import assert_same, same
from tests.toy import CONFIG, Rows, toy_data, toy_model, toy_trainer, weights

ADAMW = partial(torch.optim.AdamW, lr=5e-3)


def one_batch(**columns: Tensor):
    data = toy_data(4)
    data.setup("fit")
    tokens = next(iter(data.train_dataloader())).tokens
    return preference_batch(tokens, **columns)


def test_the_loss_is_on_the_targets_of_the_batch() -> None:
    label, margin = torch.tensor([1.0, 0.0, 0.8, 1.0]), torch.tensor([0.5, -2.0, 0.0, 3.0])
    weight, strength = torch.tensor([1.0, 2.0, 0.5, 1.0]), torch.tensor([0.4, -1.0, 0.2, 2.0])
    batch = one_batch(label=label, margin=margin, weight=weight, strength=strength)
    module = StrengthAwareRM(toy_model(dtype="float64"), ADAMW, distill=0.25, centering=0.1)
    output = module(batch)
    losses = module.losses(batch, output)
    chosen, rejected = output.chosen.tolist(), output.rejected.tolist()
    ranking = reference.ranking_loss(chosen, rejected, label.tolist(), margin.tolist(), weight.tolist())
    squares = [
        w * (c - r - s) ** 2 for c, r, s, w in zip(chosen, rejected, strength.tolist(), weight.tolist(), strict=True)
    ]
    sided = [
        (c - r - m > 0) == (p > 0.5)
        for c, r, m, p in zip(chosen, rejected, margin.tolist(), label.tolist(), strict=True)
    ]
    centering = reference.centering_loss(chosen, rejected)
    assert losses["ranking"].item() == same(ranking)
    assert losses["distillation"].item() == same(sum(squares) / 4)
    assert losses["margin_accuracy"].item() == sum(sided) / 4
    assert losses["loss"].item() == same(0.75 * ranking + 0.25 * sum(squares) / 4 + 0.1 * centering)


def test_distilling_needs_strengths(tmp_path: Path) -> None:
    module = StrengthAwareRM(toy_model(), ADAMW, distill=1.0)
    with pytest.raises(ValueError, match="needs a strength for every pair"):
        toy_trainer(tmp_path).fit(module, toy_data(cache_dir=tmp_path))
    with pytest.raises(ValueError, match="distill=2"):
        StrengthAwareRM(toy_model(), ADAMW, distill=2)


def test_without_treatments_it_trains_as_the_baseline(tmp_path: Path) -> None:
    from lightning_rm.modules.baseline import BaselineRM

    trained = []
    for method in (BaselineRM, StrengthAwareRM):
        module = method(toy_model(), ADAMW)
        toy_trainer(tmp_path, max_steps=3).fit(module, toy_data(16))
        trained.append(weights(module))
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name])


def test_flipping_planted_errors_is_training_on_the_truth(tmp_path: Path) -> None:
    """Half the labels are wrong, strengths say which: flipped, the rewards come to follow the truth."""
    rows = [
        replace(row, strength_mean=row.gold_margin, strength_std=0.0)
        for row in SyntheticSource(64, split="train", noise=0.5)
    ]
    data = PreferenceDataModule(
        world_tokenizer(),
        train=Rows(rows),
        val={"val": Rows(rows)},
        batch_pairs=16,
        cache_dir=tmp_path,
        treatments=[partial(flip, below_mean=0.0), partial(adaptive_margin, scale=0.1)],
    )
    module, trainer = StrengthAwareRM(toy_model(), ADAMW), toy_trainer(tmp_path, max_epochs=25)
    trainer.fit(module, data)
    assert trainer.callback_metrics["val/clean_accuracy"] > 0.95
    assert trainer.callback_metrics["train_epoch/accuracy"] > 0.9


def test_supervised_learning_is_on_chosen_text_and_leaves_the_head(tmp_path: Path) -> None:
    model = toy_model()
    with_head = type(model).from_config(
        CONFIG, vocab_size=len(world_tokenizer()), pad_id=world_tokenizer().pad_token_id, keep_lm_head=True
    )
    head = [parameter.clone() for parameter in with_head.head_parameters()]
    module, trainer = SupervisedLM(with_head, ADAMW), toy_trainer(tmp_path, max_epochs=8, log_every_n_steps=1)
    source = SyntheticSource(64, split="train", flawless=True)
    data = PreferenceDataModule(world_tokenizer(), train=source, batch_pairs=16, cache_dir=tmp_path)
    losses: list[float] = []
    trainer.fit(module, data)
    losses.append(float(trainer.callback_metrics["train/lm"]))
    assert losses[-1] < 0.7 * torch.log(torch.tensor(float(len(world_tokenizer())))).item()
    for before, after in zip(head, with_head.head_parameters(), strict=True):
        assert torch.equal(before, after)


def members(**options: object) -> MemberRewardModel:
    return MemberRewardModel.of(toy_model(dtype="float64"), Members(num_members=3, **options))  # pyright: ignore[reportArgumentType]


def test_members_each_learn_from_a_sample_of_their_own() -> None:
    module = VotersRM(members(), ADAMW, seed=5)
    batch = one_batch()
    output = module(batch)
    sample = bootstrap_weights(batch.row, 3, 5)
    losses = [
        reference.ranking_loss(c.tolist(), r.tolist(), [1.0] * 4, [0.0] * 4, w.tolist())
        for c, r, w in zip(output.chosen, output.rejected, sample, strict=True)
    ]
    assert module.losses(batch, output)["loss"].item() == same(sum(losses) / 3)
    with pytest.raises(ValueError, match="two members or more"):
        VotersRM(toy_model(), ADAMW)


def test_a_list_is_in_a_sample_with_all_of_its_pairs() -> None:
    """Lists of rows 7 and 4, and of 6 and 3, in whatever order: each has the counts of its first row."""
    module = VotersRM(members(), ADAMW, seed=5)
    batch = replace(one_batch(), row=torch.tensor([7, 6, 4, 3]), group=torch.tensor([1, 0, 1, 0]))
    assert first_rows(batch.row, batch.group).tolist() == [4, 3, 4, 3]
    sample = bootstrap_weights(torch.tensor([4, 3, 4, 3]), 3, 5)
    assert not torch.equal(sample, bootstrap_weights(batch.row, 3, 5))
    output = module(batch)
    losses = [
        reference.ranking_loss(c.tolist(), r.tolist(), [1.0] * 4, [0.0] * 4, w.tolist())
        for c, r, w in zip(output.chosen, output.rejected, sample, strict=True)
    ]
    assert module.losses(batch, output)["loss"].item() == same(sum(losses) / 3)


def test_members_are_trained_evaluated_and_exported(tmp_path: Path) -> None:
    module, data = VotersRM(members(), ADAMW), toy_data(16)
    trainer = toy_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, data)
    assert trainer.callback_metrics["val/num_pairs"] == 7
    module.model.save_pretrained(tmp_path / "members", world_tokenizer())
    again = MemberRewardModel.load(tmp_path / "members", tokenizer=world_tokenizer(), dtype="float64").eval()
    module.eval()
    batch = one_batch()
    assert_same(again(batch.tokens).reward, module(batch).reward)
