"""Responses that go with the training pairs, and sets of responses that are evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.strategies import DDPStrategy

from lightning_rm.batch import GroupBatch
from lightning_rm.data.batches.group_stream import GroupStream
from lightning_rm.data.datamodule import PreferenceDataModule
from tests.data.datamodule.given import (
    NUM_GROUPS,
    Recorder,
    Rows,
    data,
    every_epoch,
    every_step,
    group,
    groups,
    trainer,
    with_responses,
)


def said(num_epochs: int, accumulate: int, rank: int = 0, world_size: int = 1, num_steps: int = 12) -> list[Any]:
    """The naive way, micro-batch by micro-batch: a window's groups come with its first."""
    stream = GroupStream(NUM_GROUPS, 3, rank, world_size)
    expected: list[Any] = []
    for step in range(num_epochs * num_steps):
        place = step % num_steps
        window = min(accumulate, num_steps - place) if place % accumulate == 0 else 0
        expected.append([stream.rows(step + later) for later in range(window)])
    return expected


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 3, 5])
def test_a_step_begins_with_responses_for_each_of_its_micro_batches(
    tmp_path: Path, accumulate: int, num_workers: int
) -> None:
    """The last window of accumulate 5 has two micro-batches, and two batches of responses."""
    module, plain = Recorder(), Recorder()
    options = {"accumulate_grad_batches": accumulate}
    trainer(tmp_path, **options).fit(module, data(**with_responses(num_workers=num_workers)))
    trainer(tmp_path, **options).fit(plain, data())
    assert module.said == said(2, accumulate)
    assert plain.said == [[]] * 24
    assert (module.read, module.gradients) == (plain.read, plain.gradients)


def test_a_limit_ends_the_responses_too(tmp_path: Path) -> None:
    module = Recorder()
    options = {"accumulate_grad_batches": 3, "limit_train_batches": 5}
    trainer(tmp_path, **options).fit(module, data(**with_responses()))
    assert [len(batches) for batches in module.said] == [3, 0, 0, 2, 0] * 2
    assert module.said[5] == said(2, 3)[12]


def test_overfitting_reads_the_same_responses_every_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, overfit_batches=2, max_epochs=3).fit(module, data(**with_responses()))
    assert module.said[:2] * 3 == module.said == said(1, 1)[:2] * 3


def test_what_is_set_afterwards_holds_for_responses_too() -> None:
    def first(**options: Any) -> PreferenceDataModule:
        return data(**with_responses(**options))

    def read(data_module: PreferenceDataModule) -> list[list[int]]:
        return [groups.row.tolist() for batch in data_module.train_dataloader() for groups in batch.responses]

    changed = first(seed=0)
    before = read(changed)
    changed.seed = 3
    assert read(changed) == read(first(seed=3)) != before


def test_a_batch_of_responses_is_layout_columns_and_place() -> None:
    data_module = data(**with_responses(layout="packed"))
    batch = next(iter(data_module.train_dataloader()))
    (responses,) = batch.responses
    assert (responses.data_set, responses.num_groups, responses.tokens.input_ids.shape[0]) == ("responses", 3, 1)
    assert responses.present.sum(0).tolist() == [2 + row % 2 for row in responses.row.tolist()]
    eos = data_module.tokenizer.eos_token_id
    assert (responses.tokens.input_ids.flatten()[responses.tokens.reward_index] == eos).all()
    assert batch.to("cpu").responses[0].gold.shape == responses.gold.shape


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_resumed_run_reads_the_same_responses(tmp_path: Path, accumulate: int, num_workers: int) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    kept = {"callbacks": [every_step(tmp_path)]}
    whole = Recorder()
    trainer(tmp_path, **options, **kept).fit(whole, data(**with_responses()))
    steps_an_epoch = -(-12 // accumulate)
    for step in (1, 2, steps_an_epoch, steps_an_epoch + 1):
        epoch, within = divmod(step, steps_an_epoch)
        done = 12 * epoch + min(12, within * accumulate)
        rest = Recorder(asks_for_steps=True)
        trainer(tmp_path, **options).fit(
            rest,
            data(**with_responses(num_workers=num_workers)),
            ckpt_path=tmp_path / f"step={step}.ckpt",
            weights_only=True,
        )
        assert (rest.read, rest.said) == (whole.read[done:], whole.said[done:]), f"resumed after step {step}"


def test_a_run_resumed_within_a_step_begins_with_the_responses_of_that_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_check_interval": 3, "accumulate_grad_batches": 2}
    whole, rest = Recorder(), Recorder()
    trainer(tmp_path, **options, callbacks=[every_epoch(tmp_path, False)]).fit(whole, data(**with_responses()))
    with pytest.warns(UserWarning, match="gradients of 1 micro-batches are lost"):
        trainer(tmp_path, **options).fit(
            rest, data(**with_responses()), ckpt_path=tmp_path / "step=1.ckpt", weights_only=True
        )
    assert (whole.said[2], whole.said[3]) == (rest.said[0], [])
    assert rest.said[1:] == whole.said[4:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_groups": 2}, "batch_groups=3, now 2"),
        ({"responses": groups(4)}, "groups=11, now 4"),
        ({"responses": Rows([*groups(10).rows, group(99)])}, r"written with responses=\w{12}, now \w{12}\. Resume"),
        ({"responses": None}, "groups=11, now None; batch_groups=3, now None"),
    ],
)
def test_resuming_with_other_responses_is_an_error(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    trainer(tmp_path, callbacks=[every_step(tmp_path)], max_epochs=1).fit(Recorder(), data(**with_responses()))
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(
            Recorder(), data(**with_responses(**options)), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True
        )


def test_sets_of_responses_follow_those_of_pairs(tmp_path: Path) -> None:
    """Every group once, as the rows stand."""
    module = Recorder()
    sets = {"val_responses": groups(4), "test_responses": {"near": groups(7), "far": groups(2)}}
    data_module = data(**with_responses(**sets))
    trainer(tmp_path, max_epochs=1).fit(module, data_module)
    trainer(tmp_path).test(module, data_module, verbose=False)
    assert (data_module.val_names, data_module.val_response_names) == (("val",), ("val_responses",))
    assert (data_module.test_names, data_module.test_response_names) == (("one", "two"), ("near", "far"))
    assert {
        key: rows for key, rows in module.shown.items() if "one" not in key and "two" not in key and key[1] != "val"
    } == {
        ("val", "val_responses", 1): [0, 1, 2, 3],
        ("test", "near", 2): [0, 1, 2, 3, 4, 5, 6],
        ("test", "far", 3): [0, 1],
    }
    assert {name: report.kept for name, report in data_module.reports.items()} == {
        "train": 23,
        "val": 5,
        "one": 3,
        "two": 4,
        "responses": 11,
        "val_responses": 4,
        "near": 7,
        "far": 2,
    }


def test_only_the_responses_that_a_stage_needs_are_opened() -> None:
    data_module = data(**with_responses(val_responses=groups(2), test_responses=groups(2)))
    data_module.setup("validate")
    assert list(data_module.responses.opened) == ["val_responses"]
    data_module.setup("fit")
    assert list(data_module.responses.opened) == ["val_responses", "responses"]
    data_module.prepare_data()
    assert list(data_module.responses.opened) == ["val_responses", "responses", "test_responses"]


def test_a_path_is_a_source_of_responses(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(json.dumps({"prompt": "w1", "responses": ["w2", "w3 w3"]}) + "\n")
    data_module = data(responses=path, val_responses=str(path), test_responses={"again": path})
    data_module.setup()
    assert {name: len(said) for name, said in data_module.responses.opened.items()} == {
        "responses": 1,
        "val_responses": 1,
        "again": 1,
    }


@pytest.mark.parametrize("sets", [{"test_responses": {"one": groups(2)}}, {"val_responses": {"responses": groups(2)}}])
def test_responses_with_the_name_of_another_set_are_an_error(sets: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"two data sets are named '(one|responses)'; give every"):
        data(**with_responses(**sets))


def test_no_groups_a_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch_groups=0"):
        data(batch_groups=0)


def test_ranks_read_different_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between them two ranks read what is said, every group of an epoch of the stream once, and evaluate each once."""
    read: list[list[Any]] = []
    shown: list[list[GroupBatch]] = []
    for rank in range(2):
        strategy = DDPStrategy()
        monkeypatch.setattr(
            type(strategy), "distributed_sampler_kwargs", property(lambda _, r=rank: {"num_replicas": 2, "rank": r})
        )
        data_module = data(**with_responses(val_responses={"odd": groups(7), "one": groups(1)}, test=None))
        data_module.trainer = L.Trainer(accelerator="cpu", strategy=strategy, logger=False, enable_checkpointing=False)
        batches = list(data_module.train_dataloader())
        read.append([[tuple(responses.row.tolist()) for responses in batch.responses] for batch in batches])
        assert read[rank] == said(1, 1, rank, 2, num_steps=6)
        loaders: Any = data_module.val_dataloader()
        shown += [list(loaders[1])]
        (filled,) = loaders[2]
        assert (filled.row.tolist(), filled.valid.tolist()) == ([0], [rank == 0])
    dealt = [row for step in zip(*read, strict=True) for (batch,) in step for row in batch]
    assert [sorted(dealt[start : start + NUM_GROUPS]) for start in (0, 11, 22)] == [list(range(NUM_GROUPS))] * 3
    assert [[batch.row.tolist() for batch in batches] for batches in shown] == [[[0, 1, 2], [6]], [[3, 4, 5], [6]]]
    assert [[batch.valid.tolist() for batch in batches][1] for batches in shown] == [[True], [False]]
