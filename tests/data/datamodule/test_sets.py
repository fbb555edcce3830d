"""Sets of pairs: named, held out, opened when a stage needs them, and counted."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.data.datamodule.given import NUM_TRAIN, Recorder, Rows, data, pair, tokenizer, trainer


def test_named_sets_are_told_apart_by_their_place(tmp_path: Path) -> None:
    module, data_module = Recorder(), data()
    trainer(tmp_path, max_epochs=1).fit(module, data_module)
    trainer(tmp_path).test(module, data_module, verbose=False)
    assert (data_module.val_names, data_module.test_names) == (("val",), ("one", "two"))
    assert {key: sorted(rows) for key, rows in module.shown.items()} == {
        ("val", "val", 0): [0, 1, 2, 3, 4],
        ("test", "one", 0): [0, 1, 2],
        ("test", "two", 1): [0, 1, 2, 3],
    }


def test_evaluation_batches_have_a_size_of_their_own() -> None:
    assert [batch.num_pairs for batch in data(eval_batch_pairs=4).val_dataloader()[0]] == [4, 1]
    assert [batch.num_pairs for batch in data().val_dataloader()[0]] == [2, 2, 1]
    budget = data(batch_tokens=100, eval_batch_pairs=3)
    assert [batch.num_pairs for batch in budget.val_dataloader()[0]] == [3, 2]


def test_a_run_without_validation(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, max_epochs=1).fit(module, data(val=None))
    assert len(module.read) == 12
    assert module.shown == {}


def test_held_out_prompts_stand_on_one_side(tmp_path: Path) -> None:
    rows = Rows([pair(i, prompt=i // 3) for i in range(60)])
    data_module = data(train=rows, val=None, val_fraction=0.25)
    data_module.setup("fit")

    def prompts(name: str) -> set[str]:
        pairs = data_module.datasets[name]
        return {pairs.text(i).prompt for i in range(len(pairs))}

    assert data_module.val_names == ("val",)
    assert prompts("train") | prompts("val") == {f"w{i}" for i in range(20)}
    assert not prompts("train") & prompts("val")
    assert 1 <= len(prompts("val")) <= 10


def test_the_split_does_not_depend_on_the_seed() -> None:
    def held_out(seed: int) -> list[str]:
        data_module = data(val=None, val_fraction=0.3, seed=seed)
        data_module.setup("validate")
        pairs = data_module.datasets["val"]
        return [pairs.text(i).id for i in range(len(pairs))]

    assert held_out(0) == held_out(1)


def test_a_path_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "w1", "chosen": "w2", "rejected": "w3 w3"}) + "\n")
    data_module = PreferenceDataModule(tokenizer(), train=path, val=str(path), test={"again": path})
    data_module.setup()
    assert {name: len(pairs) for name, pairs in data_module.datasets.items()} == {"train": 1, "val": 1, "again": 1}


def test_only_what_a_stage_needs_is_opened() -> None:
    data_module = data()
    data_module.setup("validate")
    assert list(data_module.datasets) == ["val"]
    data_module.setup("fit")
    opened = data_module.datasets["val"]
    data_module.setup("fit")
    assert list(data_module.datasets) == ["val", "train"]
    assert data_module.datasets["val"] is opened
    data_module.prepare_data()
    assert list(data_module.datasets) == ["val", "train", "one", "two"]


def test_reports_count_what_was_left_out() -> None:
    data_module = data(max_tokens=12)
    data_module.setup("fit")
    report = data_module.reports["train"]
    assert (report.name, report.read) == ("train", NUM_TRAIN)
    assert 0 < report.kept < NUM_TRAIN
    assert report.reasons == {"overlong": NUM_TRAIN - report.kept}
    assert str(data_module).startswith(f"train: {NUM_TRAIN} rows read, {report.kept} kept\n  left out: overlong")
    assert str(data()).startswith("no set has been read yet")


def test_workers_read_the_same(tmp_path: Path) -> None:
    alone, helped = Recorder(), Recorder()
    trainer(tmp_path).fit(alone, data())
    trainer(tmp_path).fit(helped, data(num_workers=2))
    assert helped.read == alone.read
    assert helped.shown == alone.shown


def test_sizes_that_are_hardly_meant_are_said() -> None:
    rows = [{"prompt": f"name {n}", "chosen": "axe", "rejected": "cat"} for n in range(20)]
    data = PreferenceDataModule(world_tokenizer(), rows, val_fraction=0.9, batch_pairs=64)
    with pytest.warns(UserWarning, match="pairs are held out as val, more than the") as said:
        data.train_dataloader()
    num_pairs = len(data.datasets["train"])
    assert any(f"there are {num_pairs} training pairs, one batch holds them all" in str(one.message) for one in said)


def test_prompts_that_are_trained_on_are_told_where_they_are_measured() -> None:
    """Once a set, by name and words: numbers that two files have in common are no prompts in common."""
    answers = {"chosen": "w50", "rejected": "w51"}
    train = [{"prompt": f"w{number}", **answers, "prompt_id": number} for number in range(8)]
    known = [{"prompt": "w3", "chosen": f"w{52 + number}", "rejected": "w51", "prompt_id": 3} for number in range(5)]
    new = [{"prompt": f"w{20 + number}", **answers, "prompt_id": number} for number in range(8)]
    module = PreferenceDataModule(tokenizer(), train, val={"mixed": [*known, *new], "new": new}, test=train)
    said = r"mixed: 5 of 13 pairs have a prompt that is trained on too \(records row 0, .* row 1, .* row 2, \.\.\.\)"
    with pytest.warns(UserWarning, match=said) as warned:
        module.setup("fit")
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="test: 8 of 8 pairs have a prompt that is trained on too"):
        module.setup()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.setup()
        PreferenceDataModule(tokenizer(), train, val_fraction=0.3).setup()
