"""What a run trains on: every pair once an epoch, in the order of the seed, each step on the mean over its pairs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.batches.repeats import sequence_index
from lightning_rm.strength import label_smoothing
from tests.data.datamodule.given import NUM_TRAIN, Recorder, Rows, data, pair, source, trainer
from tests.float64 import same


def test_a_batch_is_layout_columns_and_place() -> None:
    data_module = data(train=Rows([replace(pair(i), margin=i / 2, subset=f"s{i % 2}") for i in range(4)]), seed=3)
    data_module.setup("fit")
    (first, second) = data_module.train_dataloader()
    assert (first.num_pairs, first.data_set, first.scale) == (2, "train", 1.0)
    assert first.subset_names == ("s0", "s1")
    assert sorted([*first.row.tolist(), *second.row.tolist()]) == [0, 1, 2, 3]
    assert (first.margin * 2).tolist() == first.row.tolist()
    assert (first.subset == first.row % 2).all()
    assert first.valid.tolist() == [True, True]
    assert first.tokens.reward_index.shape == (2, 2)
    lengths = data_module.datasets["train"].lengths[first.row.numpy()]
    assert first.tokens.mask.sum() == lengths.sum()
    eos = data_module.tokenizer.eos_token_id
    assert (first.tokens.input_ids.flatten()[first.tokens.reward_index] == eos).all()


def test_a_token_budget_knows_prompts_by_their_tokens() -> None:
    """Twenty prompts of equal length under one prompt_id are twenty prompts."""
    words = [({"role": "user", "content": " ".join([f"w{i}"] * 20)},) for i in range(20)]
    rows = [replace(pair(1), id=str(i), prompt=prompt, prompt_id="same") for i, prompt in enumerate(words)]
    batches = list(data(train=Rows(rows), layout="shared_prefix", batch_tokens=160).train_dataloader())
    assert sum(batch.num_pairs for batch in batches) == 20
    assert max(batch.tokens.num_tokens for batch in batches) <= 160


def test_every_train_pair_once_an_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path).fit(module, data())
    first, second = module.read[:12], module.read[12:]
    assert sorted(row for batch in first for row in batch) == list(range(NUM_TRAIN))
    assert sorted(row for batch in second for row in batch) == list(range(NUM_TRAIN))
    assert first != second


def test_the_seed_alone_decides_the_order(tmp_path: Path) -> None:
    def read(seed: int) -> list[tuple[int, ...]]:
        module = Recorder()
        trainer(tmp_path, max_epochs=1).fit(module, data(seed=seed))
        return module.read

    assert read(0) == read(0)
    assert read(0) != read(1)


def test_torch_random_numbers_are_left_alone() -> None:
    data_module = data()
    data_module.setup()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert sum(batch.num_pairs for batch in data_module.train_dataloader()) == NUM_TRAIN
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("accumulate", [1, 3, 5])
def test_every_step_is_on_the_mean_over_its_pairs(tmp_path: Path, accumulate: int) -> None:
    """12 micro-batches: the last window is short for accumulate 5, and the last micro-batch has one pair."""
    module = Recorder()
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=accumulate).fit(module, data())
    steps = [module.read[i : i + accumulate] for i in range(0, 12, accumulate)]
    means = [float(np.mean([row for batch in step for row in batch])) for step in steps]
    assert module.gradients == same(means)


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    """Steps of 6 pairs, in micro-batches of 2 or at once."""
    parts, whole = Recorder(), Recorder()
    trainer(tmp_path, accumulate_grad_batches=3).fit(parts, data(order="random"))
    trainer(tmp_path).fit(whole, data(order="random", batch_pairs=6))
    assert parts.gradients == same(whole.gradients)
    assert len(whole.gradients) == 8


def test_a_limit_ends_the_last_step(tmp_path: Path) -> None:
    """5 of 12 micro-batches with accumulate 2: the third step holds one micro-batch and is on its mean."""
    module = Recorder()
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2, limit_train_batches=5).fit(module, data())
    assert len(module.read) == 5
    assert module.gradients[-1] == same(np.mean(module.read[-1]))


def test_overfitting_reads_the_same_batches_every_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, overfit_batches=2, max_epochs=3).fit(module, data())
    assert module.read[:2] * 3 == module.read


def test_what_is_set_afterwards_holds_from_the_next_loader_on() -> None:
    """As a notebook does it, and Lightning's search for a batch size."""
    data_module = data()
    before = next(iter(data_module.train_dataloader()))
    data_module.batch_pairs, data_module.seed, data_module.order = 6, 3, "random"
    first = next(iter(data_module.train_dataloader()))
    assert (before.num_pairs, first.num_pairs) == (2, 6)
    assert first.row.tolist() == next(iter(data(batch_pairs=6, seed=3, order="random").train_dataloader())).row.tolist()


def test_treatments_that_are_set_afterwards_hold_from_the_next_loader_on() -> None:
    data_module = data(train=source(NUM_TRAIN, strength_mean=1.0))
    before = next(iter(data_module.train_dataloader()))
    data_module.treatments = [partial(label_smoothing, alpha=0.25)]
    after = next(iter(data_module.train_dataloader()))
    assert (before.label.tolist(), after.label.tolist()) == ([1.0, 1.0], [0.75, 0.75])
    assert list(data_module.treatments) == ["1. label_smoothing"]
    assert list(data_module.datasets["train"].changed) == ["soft label"]


def test_a_budget_that_is_set_beside_a_number_of_pairs_is_refused() -> None:
    data_module = data()
    data_module.batch_tokens = 100
    with pytest.raises(ValueError, match="batch_pairs=2 and batch_tokens=100 are both set"):
        data_module.train_dataloader()
    data_module.batch_pairs = None
    assert max(batch.tokens.num_tokens for batch in data_module.train_dataloader()) <= 100


def test_prompt_order_shares_responses() -> None:
    """All 28 pairs of 8 responses, 14 a batch: 8 sequences a batch at most instead of 28."""
    chosen_rejected = [(a, b) for a in range(8) for b in range(a)]
    rows = [
        replace(pair(0), id=f"{a}{b}", chosen=pair(a).chosen, rejected=({"role": "assistant", "content": f"w{b}"},))
        for a, b in chosen_rejected
    ]
    data_module = data(train=Rows(rows), order="prompt", batch_pairs=14)
    batches = list(data_module.train_dataloader())
    assert [batch.tokens.input_ids.shape[0] <= 8 for batch in batches] == [True, True]
    index = sequence_index(data_module.datasets["train"])
    assert index.tolist()[:3] == [[0, 1], [2, 1], [2, 0]]


def test_ranks_come_from_the_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks read every pair once between them, and validation in batches of equal number, fillers marked."""
    read: list[list[PreferenceBatch]] = []
    for rank in range(2):
        strategy = DDPStrategy()
        monkeypatch.setattr(
            type(strategy), "distributed_sampler_kwargs", property(lambda _, r=rank: {"num_replicas": 2, "rank": r})
        )
        data_module = data(val=source(1))
        data_module.trainer = L.Trainer(accelerator="cpu", strategy=strategy, logger=False, enable_checkpointing=False)
        read.append(list(data_module.train_dataloader()))
        (filled,) = data_module.val_dataloader()[0]
        assert (filled.row.tolist(), filled.valid.tolist()) == ([0], [rank == 0])
    assert [len(batches) for batches in read] == [6, 6]
    assert sorted(row for batches in read for batch in batches for row in batch.row.tolist()) == list(range(NUM_TRAIN))
