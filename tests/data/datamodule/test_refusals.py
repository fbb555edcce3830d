"""What the data module refuses, and how it says so."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import RunningStage

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow
from lightning_rm.data.store.report import RowsLeftOut
from tests.data.datamodule.given import Rows, data, groups, pair, source, tokenizer, trainer


def test_two_sets_of_one_name_and_a_name_of_no_file_are_errors() -> None:
    for name in ("a/b", "a\\b", ""):
        with pytest.raises(ValueError, match="files and metrics are named after it; give a name without a slash"):
            data(test={name: source(2)})
    with pytest.raises(ValueError, match="two data sets are named 'one'"):
        data(val={"one": source(2)})


def test_no_training_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        data(train=None).train_dataloader()


def test_no_batch_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch_pairs and batch_tokens"):
        data(batch_pairs=None)


def test_no_pad_token_is_an_error() -> None:
    bare = tokenizer()
    bare.pad_token = None
    with pytest.raises(ValueError, match="no pad token"):
        PreferenceDataModule(bare, source(2))
    name: Any = "a/name"
    with pytest.raises(ValueError, match=r"tokenizer is of the type str; give load_tokenizer\('a/name'\)"):
        PreferenceDataModule(name, source(2))
    with pytest.raises(ValueError, match="treatments is the text 'flip'; give functions"):
        data(treatments="flip")


@pytest.mark.parametrize(("option", "words"), [("order", "random, "), ("layout", "padded, ")])
def test_an_unknown_word_is_an_error(option: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"{option}='x'; it must be one of {words}"):
        data(**{option: "x"})


def test_a_sampler_put_in_by_lightning_is_an_error(tmp_path: Path) -> None:
    """Lightning would replace the order of pairs by its own; its message names the setting."""
    two = trainer(tmp_path, strategy=DDPStrategy(), devices=2, use_distributed_sampler=True)
    with pytest.raises(TypeError, match="use_distributed_sampler=False"):
        two._data_connector._prepare_dataloader(data().train_dataloader(), True, RunningStage.TRAINING)


def test_a_pair_over_the_token_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="over the budget of 20 tokens a batch; raise it"):
        data(batch_tokens=20).train_dataloader()


def test_a_pair_of_any_set_over_the_token_budget_is_found_before_training() -> None:
    """Not when the set is first read, which is after training for a test set."""
    sets = {"train": source(2), "val": source(2), "test": source(9)}
    assert len(list(data(**sets, batch_tokens=40).train_dataloader())) == 1
    with pytest.raises(ValueError, match="over the budget of 20 tokens a batch"):
        data(**sets, batch_tokens=20).setup("test")
    data(**sets, batch_tokens=20).setup("fit")
    data(**sets, batch_tokens=20, eval_batch_pairs=2).setup("test")


def test_a_pair_over_the_budget_is_named_by_its_place() -> None:
    rows = [pair(0), replace(pair(9), origin="pairs.jsonl:17")]
    with pytest.raises(ValueError, match=r"pairs\.jsonl:17 has \d+ and \d+ tokens"):
        data(train=Rows(rows), batch_tokens=4).train_dataloader()


def test_rows_that_are_not_used_are_said_once_a_set() -> None:
    """A notebook has no table."""
    rows = Rows([pair(0), BadRow("a.jsonl:2", "missing field", "chosen"), pair(1)])
    sets = data(train=rows, val=None, test={"test": source(2)}, on_bad_row="drop", responses=groups(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sets.setup()
        sets.setup()
    said = [str(warning.message) for warning in caught if warning.category is RowsLeftOut]
    assert [text.splitlines()[:2] for text in said] == [
        ["train: 3 rows read, 2 kept", "  left out: missing field 1 (a.jsonl:2: chosen)"]
    ]


@pytest.mark.parametrize(
    "name", ["batch_pairs", "batch_tokens", "eval_batch_pairs", "max_tokens", "prepare_processes", "batch_groups"]
)
@pytest.mark.parametrize("number", [0, "8", 1.5])
def test_a_number_that_is_none_or_below_1_is_an_error(name: str, number: object) -> None:
    with pytest.raises(ValueError, match=f"{name}={number!r}; give (a whole number, )?1 or more"):
        data(**{name: number})


def test_a_file_without_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n")
    empty = re.escape(str(path))
    with pytest.raises(ValueError, match=rf"^train: no pair is left to use: there is no row in {empty}\ntrain: 0 rows"):
        data(train=path).setup("fit")
    with pytest.raises(ValueError, match=rf"^responses: no group is left to use: there is no row in {empty}\n"):
        data(responses=path).setup("fit")


def test_a_set_and_a_subset_of_one_name_are_an_error() -> None:
    """Both would be logged as `val/hard/accuracy`, and their mean is nobody's."""
    sets = {"val": {"val": source(4, subset="hard"), "hard": source(3)}}
    with pytest.raises(ValueError, match=r"hard: a set of that name and a subset of the set val .* as val/hard"):
        data(**sets).setup("fit")
    with pytest.raises(ValueError, match=r"ood: a set of that name and a subset of the set test .* as test/ood"):
        data(test={"ood": source(3), "test": source(4, subset="ood")}).setup()  # as Lightning calls it before training
    data(val={"val": source(4, subset="hard"), "easy": source(3)}).setup("fit")
