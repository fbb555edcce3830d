"""Rows in memory: the pairs of a file with the same rows, a fingerprint of what they hold, and what is not a source."""

from __future__ import annotations

import json
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lightning_rm
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, GroupRow, PairRow
from lightning_rm.data.sets import as_source, group_sets
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.sources.groups import GroupFile, GroupRecords
from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.sources.resampling import PromptSplit
from lightning_rm.data.synthetic.pairs import SyntheticSource
from tests.data.words import TEMPLATE, word_tokenizer

SORTS_KEYS = pa.array([{"b": 1, "a": 1}]).type.field(0).name == "a"
"""Older Arrows make the columns of a dict in alphabetical order."""

ROWS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": f"w{i}"}],
        "chosen": [{"role": "assistant", "content": f"w{i} w1"}],
        "rejected": [{"role": "assistant", "content": f"w{i} w2 w3"}],
        "margin": i / 2,
        "kind": "even" if i % 2 == 0 else "odd",
    }
    for i in range(5)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def changed(rows: list[dict[str, Any]], change: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    """The rows, the last of them changed."""
    copy = deepcopy(rows)
    change(copy[-1])
    return copy


@pytest.mark.parametrize("options", [{}, {"columns": {"subset": "kind"}, "where": {"kind": "even"}}, {"subset": "a"}])
def test_rows_in_memory_are_those_of_a_file(tmp_path: Path, options: dict[str, Any]) -> None:
    read = list(FileSource(write(tmp_path / "a.jsonl", ROWS), **options))
    data = datasets.Dataset.from_list(ROWS)
    kept = [row for row in read if isinstance(row, PairRow)]
    assert len(kept) == (3 if "where" in options else 5)
    for records in (ROWS, tuple(ROWS), [UserDict(row) for row in ROWS], data, data.with_format("numpy")):
        source = RecordSource(records, **options)
        assert [row for row in source if isinstance(row, PairRow)] == kept
        assert list(source) == list(source)
    with pytest.raises(ValueError, match="where names 'knd', which no row has; the fields are chosen"):
        list(RecordSource(ROWS, where={"knd": "even"}))


def test_what_json_has_no_word_for_is_read_as_a_file_would_have_it(tmp_path: Path) -> None:
    """Tuples, arrays and numbers of numpy, and what pandas reads from Parquet."""
    tool = {"name": "f"}
    plain = [row | {"tools": [tool], "votes": [0.5, 1.5], "strength_mean": 1.0, "label": 0.75} for row in ROWS]
    path = write(tmp_path / "a.jsonl", plain)
    given = [
        row
        | {
            "prompt": np.array(row["prompt"], dtype=object),
            "chosen": tuple(row["chosen"]),
            "tools": (OrderedDict(tool),),
            "votes": np.array([0.5, 1.5], np.float32),
            "strength_mean": np.float32(1),
            "label": np.float32(0.75),
            "made": datetime(2024, 7, 26),
        }
        for row in ROWS
    ]
    assert list(RecordSource(given)) == list(FileSource(path))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert list(RecordSource(frame.to_dict("records"))) == list(FileSource(tmp_path / "a.parquet"))


def test_a_row_that_cannot_be_read_is_named_by_its_place() -> None:
    bad = [*ROWS[:2], {"chosen": "a"}, "w1", *ROWS[2:]]
    source = RecordSource(bad)  # pyright: ignore[reportArgumentType]
    assert [(row.origin, row.reason) for row in source if isinstance(row, BadRow)] == [
        ("records row 2", "missing field"),
        ("records row 3", "wrong type"),
    ]
    assert sum(isinstance(row, PairRow) for row in source) == 5
    with pytest.raises(ValueError, match="columns names 'choosen'"):
        RecordSource(ROWS, columns={"choosen": "a"})


def test_fingerprint_is_of_content_and_options() -> None:
    source = RecordSource(ROWS)
    again: list[Any] = [deepcopy(ROWS), tuple(ROWS), [UserDict(row) for row in ROWS]]
    if not SORTS_KEYS:
        again.append(datasets.Dataset.from_list(ROWS))
    assert {RecordSource(records).fingerprint() for records in again} == {source.fingerprint()}
    others = [
        RecordSource(ROWS, columns={"subset": "kind"}),
        RecordSource(ROWS, where={"kind": "even"}),
        RecordSource(ROWS, format="preference"),
        RecordSource(ROWS, subset="mine"),
        RecordSource(ROWS[::-1]),
        RecordSource(ROWS[:4]),
        RecordSource(changed(ROWS, lambda row: row["chosen"][0].update(content="w4 w2"))),  # one word
        RecordSource(changed(ROWS, lambda row: row.update(margin=2))),
        RecordSource(changed(ROWS, lambda row: row.update(tools=[{"name": "f", "type": "g"}]))),
        RecordSource(changed(ROWS, lambda row: row.update(tools=[{"type": "g", "name": "f"}]))),  # as it is written out
        RecordSource(changed(ROWS, lambda row: row.update(made=datetime(2024, 7, 26)))),
        RecordSource(changed(ROWS, lambda row: row.update(made=datetime(2024, 7, 27)))),
    ]
    assert len({source.fingerprint(), *(other.fingerprint() for other in others)}) == len(others) + 1


def test_the_fingerprint_of_a_data_set_is_that_of_its_rows() -> None:
    """`datasets` tells data sets apart by how they were made: the same rows may have two fingerprints there."""
    data, selected = datasets.Dataset.from_list(ROWS), datasets.Dataset.from_list([*ROWS, ROWS[0]]).select(range(5))
    assert data._fingerprint != selected._fingerprint
    assert RecordSource(data).fingerprint() == RecordSource(selected).fingerprint()
    assert RecordSource(data.with_format("numpy")).fingerprint() == RecordSource(data).fingerprint()
    assert RecordSource(data.select([1, 0, 2, 3, 4])).fingerprint() != RecordSource(data).fingerprint()


def test_a_list_that_is_changed_has_another_fingerprint() -> None:
    rows = deepcopy(ROWS)
    source = RecordSource(rows)
    before = source.fingerprint()
    rows[3]["rejected"][0]["content"] = "w9"
    assert source.fingerprint() != before


def test_a_value_without_a_digest_is_named() -> None:
    with pytest.raises(ValueError, match=r"records row 4 holds a object, .* which has no digest; leave that field out"):
        RecordSource(changed(ROWS, lambda row: row.update(image=object()))).fingerprint()


FRAMES: list[Callable[[list[dict[str, Any]]], Any]] = [pd.DataFrame, pa.Table.from_pylist, datasets.Dataset.from_list]


@pytest.mark.parametrize("make", FRAMES)
def test_a_data_frame_is_read_as_the_parquet_file_of_it(tmp_path: Path, make: Any) -> None:
    """Tools and calls of two shapes, so that Arrow fills in nulls; a default that is null in its only row stays."""
    city = {"type": "string", "default": None}
    shapes = [
        {"name": "weather", "parameters": {"properties": {"city": city}}},
        {"name": "time", "parameters": {"properties": {"zone": {"type": "string"}, "day": {"enum": ["a", None]}}}},
    ]
    calls = [{"city": "Rome"}, {"zone": "UTC"}]
    rows: list[dict[str, Any]] = []
    for row, tool, arguments in zip(ROWS, shapes, calls, strict=False):
        call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
        rows.append(row | {"tools": [tool], "chosen": [call, {"role": "tool", "content": "w1"}, *row["chosen"]]})
    lines = list(FileSource(write(tmp_path / "a.jsonl", rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = FileSource(tmp_path / "a.parquet")
    assert first == lines[0]
    assert isinstance(first, PairRow)
    if not SORTS_KEYS:
        assert json.dumps(first.tools[0]) == json.dumps(shapes[0])  # and in its order
    assert second == lines[1]
    table = RecordSource(make(rows))
    assert list(table) == lines
    assert list(table) == list(table)
    again = RecordSource(make(rows))
    assert table.fingerprint() == again.fingerprint() != RecordSource(make(rows[:1])).fingerprint()
    assert list(as_source(make(rows))) == lines


def test_a_frame_with_gaps_and_its_own_kinds_of_numbers() -> None:
    frame = pd.DataFrame(ROWS).assign(id=[1, None, 3, 4, 5], label=[1, 0, None, 1, 1])
    rows = list(as_source(frame.set_index("kind")))
    assert [row.id for row in rows if isinstance(row, PairRow)][::2] == ["1", "3", "5"]
    assert [row.label for row in rows if isinstance(row, PairRow)] == [1] * 5
    assert [row.is_turned for row in rows if isinstance(row, PairRow)] == [False, True, False, False, False]
    assert rows[0].origin == "records row 0"
    mixed = pd.DataFrame({"prompt": ["w1", 2], "chosen": "w2", "rejected": "w3"})
    with pytest.raises(ValueError, match=r"the DataFrame has a column of more than one type .* frame\.to_dict"):
        as_source(mixed)


def test_a_row_nested_without_end_is_refused_by_its_place() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    source = RecordSource([ROWS[0], ROWS[1] | {"tools": deep}, ROWS[2] | {"tools": [deep]}])
    assert [(row.origin, row.reason) for row in source if isinstance(row, BadRow)] == [
        ("records row 1", "too large"),
        ("records row 2", "too large"),
    ]
    assert source.fingerprint() == source.fingerprint() != RecordSource(ROWS[:3]).fingerprint()


def test_what_can_be_read_once_only_is_an_error() -> None:
    for once in ((row for row in ROWS), iter(ROWS)):
        with pytest.raises(ValueError, match=r"of the type (generator|list_iterator), which .* give a list"):
            RecordSource(once)
        with pytest.raises(ValueError, match=r"of the type (generator|list_iterator), which .* give a list"):
            as_source(once)


def test_a_source_is_made_of_what_is_given(tmp_path: Path) -> None:
    path, other = write(tmp_path / "a.jsonl", ROWS[:2]), write(tmp_path / "b.jsonl", ROWS[2:])
    for given in (path, str(path), [path, str(other)], (path, other), [f"{tmp_path}/*.jsonl"]):
        assert isinstance(as_source(given), FileSource)
    assert list(as_source([path, str(other)])) == list(as_source(ROWS))
    for given in (ROWS, tuple(ROWS), datasets.Dataset.from_list(ROWS)):
        assert isinstance(as_source(given), RecordSource)
    for source in (RecordSource(ROWS), SyntheticSource(2), PromptSplit(FileSource(path), "train", 0.5)):
        assert as_source(source) is source


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (3, "int"),
        ([], "list and empty"),
        ([1, 2], "list, of int"),
        ([["a.jsonl"]], "list, of list"),
        (["a.jsonl", ROWS[0]], "list, of str"),
        (list(SyntheticSource(2)), "list, of PairRow"),
        (ROWS[0], "dict"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}), "DatasetDict"),
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "IterableDataset"),
        ({"a.jsonl"}, "set, of str"),
    ],
)
def test_what_is_no_source_is_named(given: Any, found: str) -> None:
    words = rf"train is of the type {found}; give a source, a path or a list of paths, or rows in memory"
    with pytest.raises(ValueError, match=words):
        PreferenceDataModule(word_tokenizer(), given)


class Table:
    """Rows that are asked for anew each time, as a database is."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ROWS)


class Unread(Table):
    """Says that it is a source, and yields rows that nobody has read."""

    def fingerprint(self) -> str:
        return "unread"


def test_what_yields_dicts_is_read_by_a_record_source(tmp_path: Path) -> None:
    data = PreferenceDataModule(word_tokenizer(), RecordSource(Table()), cache_dir=tmp_path)
    data.setup("fit")
    assert list(RecordSource(Table())) == list(RecordSource(ROWS))
    assert len(data.datasets["train"]) == len(ROWS)
    with pytest.raises(ValueError, match=r"train is of the type Table; .*; RecordSource\(train\) is a source of"):
        PreferenceDataModule(word_tokenizer(), Table())  # pyright: ignore[reportArgumentType]
    given: Any = Unread()
    with pytest.raises(ValueError, match=r"Unread yields a dict as its row 0; .*RecordSource\(rows\) makes them"):
        PreferenceDataModule(word_tokenizer(), given, cache_dir=tmp_path).setup("fit")


def test_the_data_module_takes_rows_in_memory(tmp_path: Path) -> None:
    rows = [row | {"tools": [{"name": "w8"}], "chat_template_kwargs": {"loud": True}} for row in ROWS]
    path = write(tmp_path / "a.jsonl", rows)
    tokenizer = word_tokenizer("{% if tools %}{{ tools[0]['name'] }} {% endif %}{% if loud %}w9 {% endif %}" + TEMPLATE)

    def set_up(train: Any, val: Any, test: Any) -> PreferenceDataModule:
        data = PreferenceDataModule(tokenizer, train, val, test, batch_pairs=2, cache_dir=tmp_path / "cache")
        data.setup()
        return data

    data = datasets.Dataset.from_list(rows)
    files = set_up(path, path, {"one": path, "two": [path, path]})
    memory = set_up(rows, data, {"one": data, "two": [*rows, *rows]})
    assert memory.val_names == ("val",)
    assert memory.test_names == ("one", "two")
    for name, pairs in files.datasets.items():
        found = memory.datasets[name]
        assert len(found) == (10 if name == "two" else 5)
        assert [found.sample(i) for i in range(len(found))] == [pairs.sample(i) for i in range(len(pairs))]
        margins = [opened.columns(range(len(opened)))["margin"].tolist() for opened in (found, pairs)]
        assert margins[0] == margins[1]
        assert margins[0][:5] == [0, 0.5, 1, 1.5, 2]


def test_both_are_names_of_the_package() -> None:
    assert lightning_rm.RecordSource is RecordSource
    assert lightning_rm.FileSource is FileSource


def test_groups_of_responses_in_memory_are_those_of_a_file(tmp_path: Path) -> None:
    """A list, a data set and a table: the same rows, and a digest that changes with them alone."""
    rows = [{"prompt": f"w{n}", "responses": ["w1 w2", "w3"], "gold": [1.0, 0.5], "id": f"g{n}"} for n in range(3)]
    file = tmp_path / "groups.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [replace(row, origin="") for row in GroupFile(file) if isinstance(row, GroupRow)]
    assert len(expected) == 3
    given: list[Any] = [rows, datasets.Dataset.from_list(rows), pd.DataFrame(rows), file, [str(file)]]
    sources = [group_sets(one, None, None).train["responses"] for one in given]
    for source in sources:
        assert [replace(row, origin="") for row in source if isinstance(row, GroupRow)] == expected
    assert GroupRecords(rows).fingerprint() == GroupRecords(deepcopy(rows)).fingerprint()
    assert GroupRecords(rows).fingerprint() != GroupRecords(rows[:2]).fingerprint()
    assert [row.origin for row in GroupRecords([{"prompt": "w1"}])] == ["records row 0"]
    with pytest.raises(ValueError, match="responses is of the type int; give a source, a path or a list of paths"):
        group_sets(cast(Any, 3), None, None)
    with pytest.raises(ValueError, match="train is of the type list, of NoneType; give a source"):
        as_source(cast(Any, [None]), "train")
