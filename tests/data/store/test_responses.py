"""k scored responses: which pairs they make, that a batch holds them whole and computes each response once."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rm.data.batches.layouts import padded
from lightning_rm.data.batches.share import Share
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize.pairs import prepare_pairs
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.strength import decile
from tests.data.words import Rows, group, pair, word_tokenizer

NAN = float("nan")
PROMPT = "w1 w2 w3 w4 w5 w6 w7 w8 w9"
THREE = group(PROMPT, "w11", "w12", "w13 w14", id="three", scores=({"score": 1.0}, {"score": 3.0}, {"score": 1.0}))
GAPS = group("w2", "w21", "w22", id="gaps", scores=({"a": 2.0, "b": 4.0}, {"b": 1.0}), subset="code")
ALONE = group("w3", "w31", id="alone", scores=({"score": 0.5},))
PLAIN = pair("w4", "w35", "w36", id="plain", weight=2.0)
TIED = group("w5", "w37", "w38", id="tied", scores=({"score": 1.0}, {"score": 1.0}))


def prepared(tmp_path: Path, *rows: Any, **policy: Any) -> PairDataset:
    return prepare_pairs(Rows(*rows), word_tokenizer(), TokenizePolicy(**policy), tmp_path)


def ids(pairs: PairDataset) -> list[str]:
    return [pairs.text(i).id for i in range(len(pairs))]


def test_every_two_responses_of_different_scores_are_a_pair(tmp_path: Path) -> None:
    """Scores 1, 3, 1: the second is chosen over both others. Means of attributes: 3 over 1."""
    pairs = prepared(tmp_path, THREE, GAPS, PLAIN)
    assert [(pairs.text(i).chosen, pairs.text(i).rejected) for i in range(4)] == [
        *(("w12", "w11"), ("w12", "w13 w14")),
        *(("w21", "w22"), ("w35", "w36")),
    ]
    assert ids(pairs) == ["three", "three", "gaps", "plain"]
    assert pairs.attributes == ("score", "a", "b")
    assert pairs.list_index.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(pairs.strength.mean, [2, 2, 2, NAN])
    np.testing.assert_array_equal(pairs.scores[:, 2], [[NAN, 2, 4], [NAN, NAN, 1]])
    assert pairs.list_lengths.tolist() == [[13, 13, 14], [5, 5, 0], [5, 5, 0]]
    assert pairs.sample(1).sequences[0] == pairs.sample(0).sequences[0]


def test_text_is_counted_as_batches_hold_it(tmp_path: Path) -> None:
    """The tokens of each response that is chosen in a pair, once a list: of scores 1, 3, 2 the second and the third."""
    ranked = replace(THREE, id="ranked", scores=({"score": 1.0}, {"score": 3.0}, {"score": 2.0}))
    pairs = prepared(tmp_path, THREE, PLAIN, ranked)
    samples = [[pairs.sample(int(row)) for row in pairs.pairs_of([place])] for place in range(3)]
    assert pairs.text_lengths.tolist() == [padded(of_list, "last", 0).response_index.shape[1] for of_list in samples]
    assert pairs.text_lengths.tolist() == [2, 2, 5]
    untied = pairs.treated(replace(pairs.targets(), kept=np.array([True, True, True, False, True, True])))
    assert untied.text_lengths.tolist() == [2, 2, 5]


def test_the_file_holds_every_response_once(tmp_path: Path) -> None:
    pairs = prepared(
        tmp_path, group("w1", *(f"w{n}" for n in range(2, 8)), scores=[{"score": float(n)} for n in range(6)])
    )
    assert len(pairs) == 15
    assert pairs._table.num_rows == 1  # pyright: ignore[reportPrivateUsage]  # what stands on the disk
    assert len(pairs._table["ids"][0]) == 6  # pyright: ignore[reportPrivateUsage]
    again = pickle.loads(pickle.dumps(pairs))
    assert [again.sample(i) for i in range(15)] == [pairs.sample(i) for i in range(15)]


def test_ties_are_counted_or_kept(tmp_path: Path) -> None:
    pairs = prepared(tmp_path, THREE, TIED, pair("w4", "w35", "w36", tied=True, label=0.5))
    assert ids(pairs) == ["three", "three"]
    assert (pairs.report.kept, pairs.report.reasons) == (1, {"tie": 2})
    kept = prepared(tmp_path, THREE, TIED, pair("w4", "w35", "w36", tied=True, label=0.5), ties="keep")
    assert kept.columns(range(5))["label"].tolist() == [1, 0.5, 1, 0.5, 0.5]
    assert kept.report.kept == 3
    with pytest.raises(ValueError, match="ties=keep"):
        prepared(tmp_path, TIED)


def test_a_list_gives_its_pairs_its_weight(tmp_path: Path) -> None:
    """A list of weight 3 has three times the share in the loss that it has with weight 1; the other's is as before."""
    batches: list[Any] = []
    for weight in (1.0, 3.0):
        data = PreferenceDataModule(
            word_tokenizer(),
            train=Rows(replace(THREE, weight=weight), GAPS),
            batch_pairs=2,
            cache_dir=tmp_path,
        )
        data.setup("fit")
        batches.append(next(iter(data.train_dataloader())))
    weights = [dict(zip(batch.row.tolist(), batch.weight.tolist(), strict=True)) for batch in batches]
    assert [weights[1][row] / weights[0][row] for row in range(3)] == [3, 3, 1]


def test_one_response_stands_for_a_pair_with_itself(tmp_path: Path) -> None:
    pairs = prepared(tmp_path, ALONE, THREE)
    assert pairs.single.tolist() == [True, False, False]
    assert pairs.columns([0])["label"].tolist() == [0.5]
    assert pairs.sample(0).sequences[0] == pairs.sample(0).sequences[1]


def test_responses_without_scores_are_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs 'scores' or 'ranks'"):
        prepared(tmp_path, group("w1", "w2", "w3"))


def test_treatments_leave_lists_together(tmp_path: Path) -> None:
    rows = [
        group(f"w{n}", "w30", "w31", "w32", id=str(n), scores=[{"score": 3.0 * n * place} for place in range(3)])
        for n in range(1, 11)
    ]
    data = PreferenceDataModule(
        word_tokenizer(),
        train=Rows(*rows),
        batch_pairs=2,
        cache_dir=tmp_path,
        treatments=[lambda strength, targets: decile(strength, targets, number=9)],
    )
    data.setup("fit")
    pairs = data.datasets["train"]
    assert ids(pairs) == ["8", "9", "10"]  # strengths 48, 54 and 60
    assert pairs.num_lists == len(set(ids(pairs)))
    assert len(list(data.train_dataloader())) == -(-pairs.num_lists // 2)


def test_a_curriculum_takes_lists_by_the_mean_strength_of_their_pairs(tmp_path: Path) -> None:
    """Their first pairs alone have the strengths 1, 2 and 3."""
    scores = {"a": (9.0, 8.0, 3.0), "b": (5.0, 3.0, 1.0), "c": (3.0, 0.0)}
    rows = [
        group(f"w{n}", *(f"w{30 + place}" for place in range(len(said))), id=id, scores=[{"score": s} for s in said])
        for n, (id, said) in enumerate(scores.items(), 1)
    ]
    means = {"a": (1 + 6 + 5) / 3, "b": (2 + 4 + 2) / 3, "c": 3.0}
    data = PreferenceDataModule(
        word_tokenizer(), train=Rows(*rows), batch_pairs=1, order="weakest_first", cache_dir=tmp_path
    )
    data.setup("fit")
    pairs = data.datasets["train"]
    assert dict(zip(dict.fromkeys(ids(pairs)), pairs.list_strength.tolist(), strict=True)) == means
    taken = [pairs.text(int(batch.row[0])).id for batch in data.train_dataloader()]
    assert taken == ["b", "c", "a"]


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix"])
def test_a_batch_holds_lists_whole_and_computes_each_response_once(tmp_path: Path, layout: str) -> None:
    """Two lists of 3 and 4 responses: 9 pairs over 7 sequences, whose weights are those of two pairs."""
    four = group(PROMPT, "w1", "w2", "w3", "w4", id="four", scores=[{"score": float(place)} for place in range(4)])
    three = group(PROMPT, "w5", "w6", "w7", id="three", scores=[{"score": float(place)} for place in range(3)])
    data = PreferenceDataModule(
        word_tokenizer(), train=Rows(four, three), batch_pairs=2, cache_dir=tmp_path, layout=layout, order="random"
    )
    (batch,) = data.train_dataloader()
    assert batch.num_pairs == 9
    assert batch.tokens.reward_index.unique().numel() == 7
    totals = torch.zeros(2).index_add(0, batch.group, batch.weight)
    torch.testing.assert_close(totals, torch.full((2,), 4.5))
    assert batch.scale == 1
    prompt = 9 + 2  # its words and two roles
    cells = {"padded": 7 * 13, "packed": 7 * 13, "shared_prefix": prompt + 7 * 2}
    assert batch.tokens.num_tokens == cells[layout]


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix"])
def test_a_budget_of_tokens_holds_for_lists(tmp_path: Path, layout: str) -> None:
    rows = [
        group(PROMPT, *(f"w{n}" for n in range(k)), id=str(k), scores=[{"score": float(n)} for n in range(k)])
        for k in range(2, 8)
    ]
    data = PreferenceDataModule(
        word_tokenizer(), train=Rows(*rows), batch_tokens=110, cache_dir=tmp_path, layout=layout
    )
    batches = list(data.train_dataloader())
    assert max(batch.tokens.num_tokens for batch in batches) <= 110
    assert sum(batch.num_pairs for batch in batches) == sum(k * (k - 1) // 2 for k in range(2, 8))


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_weigh_every_list_alike(tmp_path: Path, world_size: int) -> None:
    """Five lists over one rank or two: a pair's weight in the step's mean is 1 / 5 of 1 / its list's pairs."""
    rows = [
        group(f"w{k}", *(f"w{n + 20}" for n in range(k)), id=str(k), scores=[{"score": float(n)} for n in range(k)])
        for k in (2, 3, 4, 3, 2)
    ]
    data = PreferenceDataModule(word_tokenizer(), train=Rows(*rows), batch_pairs=8 // world_size, cache_dir=tmp_path)
    data.setup("fit")
    sets, batching = data._pairs, data._batching  # pyright: ignore[reportPrivateUsage]
    batches = itertools.chain(*(sets.train_loader(batching, Share(rank, world_size)) for rank in range(world_size)))
    totals = torch.zeros(5)
    for batch in batches:
        share = batch.weight * batch.scale / batch.num_pairs / world_size
        totals.index_add_(0, torch.from_numpy(data.datasets["train"].list_index)[batch.row], share)
    torch.testing.assert_close(totals, torch.full((5,), 0.2))
