"""Tokenised pairs read back from their file: columns, missing values, workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import padded
from lightning_rm.data.store.cache import seal
from lightning_rm.data.store.pairs import PairDataset, PairText
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from tests.data.words import Rows, pair, word_tokenizer

NAN = float("nan")
PLAIN = pair("w1", "w2 w3", "w2 w4 w5", "a", prompt_id="p")
FULL = pair(
    "w1",
    "w6",
    "w7",
    "b",
    prompt_id="q",
    subset="safety",
    label=0.75,
    margin=1.5,
    weight=2.0,
    gold_margin=-0.5,
    clean=False,
    strength_mean=0.1,
    strength_std=0.2,
    votes=(0.5, -0.3),
)
LAST = pair("w1", "w8", "w9", "c", prompt_id="p", clean=True)


@pytest.fixture
def dataset(tmp_path: Path) -> PairDataset:
    return prepare_pairs(Rows(PLAIN, FULL, LAST), word_tokenizer(), TokenizePolicy(), tmp_path, "train")


def test_a_sample_holds_both_sequences_and_the_prompts_length(dataset: PairDataset) -> None:
    """`4 11 5 12 13 2` and `4 11 5 12 14 15 2` share 4 tokens; the fourth, `w2`, is not a part of the prompt."""
    assert len(dataset) == 3
    assert dataset.sample(0) == Sample(([4, 11, 5, 12, 13, 2], [4, 11, 5, 12, 14, 15, 2]), 3)
    assert dataset.lengths.tolist() == [[6, 7], [5, 5], [5, 5]]
    assert (dataset.lengths - dataset.prompt_lengths[:, None]).tolist() == [[3, 4], [2, 2], [2, 2]]


def test_a_template_without_a_generation_prompt_counts_the_role_to_the_response(tmp_path: Path) -> None:
    """The prompt renders as `4 11`: the `5` of the assistant and what follows are the response."""
    template = "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    dataset = prepare_pairs(Rows(pair("w1", "w2", "w2 w3")), word_tokenizer(template), TokenizePolicy(), tmp_path)
    assert dataset.sample(0) == Sample(([4, 11, 5, 12], [4, 11, 5, 12, 13]), 2)


def test_columns_are_those_of_a_preference_batch(dataset: PairDataset) -> None:
    columns = dataset.columns([1, 0, 2])
    expected = {
        "label": torch.tensor([0.75, 1.0, 1.0]),
        "margin": torch.tensor([1.5, 0.0, 0.0]),
        "weight": torch.tensor([2.0, 1.0, 1.0]),
        "level": torch.tensor([NAN, NAN, NAN]),
        "clean": torch.tensor([0.0, NAN, 1.0]),
        "gold_margin": torch.tensor([-0.5, NAN, NAN]),
        "strength": torch.tensor([0.1, NAN, NAN]),
        "subset": torch.tensor([1, 0, 0]),
        "length": torch.tensor([[2, 3, 2], [2, 4, 2]]),
        "row": torch.tensor([1, 0, 2]),
        "scores": torch.full((2, 3, 1), NAN),
        "group": torch.tensor([1, 0, 2]),
        "side": torch.tensor([[0, 0, 0], [1, 1, 1]]),
    }
    assert columns.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(columns[name], value, rtol=0, atol=0, equal_nan=True)


def test_names_prompts_and_strength(dataset: PairDataset) -> None:
    assert dataset.subset_names == ("all", "safety")
    assert dataset.prompt_index.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(dataset.strength.mean, [NAN, 0.1, NAN])
    np.testing.assert_array_equal(dataset.strength.std, [NAN, 0.2, NAN])
    assert [dataset.votes(i) for i in range(3)] == [(), (0.5, -0.3), ()]
    assert dataset.text(1) == PairText("w1", "w6", "w7", "b")
    assert (dataset.report.name, dataset.report.kept) == ("train", 3)


def test_a_pickled_data_set_is_its_path(dataset: PairDataset) -> None:
    pickled = pickle.dumps(dataset)
    again = pickle.loads(pickled)
    assert len(pickled) < 1000
    assert [again.sample(i) for i in range(3)] == [dataset.sample(i) for i in range(3)]
    assert (again.name, again.report) == (dataset.name, dataset.report)


class Grids(torch.utils.data.Dataset[list[list[int]]]):
    def __init__(self, pairs: PairDataset) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> list[list[int]]:
        return padded([self.pairs.sample(i)], "last", 3).input_ids.tolist()


def test_workers_read_the_same_pairs(dataset: PairDataset) -> None:
    loader = DataLoader(Grids(dataset), batch_size=None, num_workers=2)
    assert list(loader) == [padded([dataset.sample(i)], "last", 3).input_ids.tolist() for i in range(3)]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.arrow"
    table = pa.table({"x": [1]})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    seal(path)
    with pytest.raises(ValueError, match="columns"):
        PairDataset(path)
