"""Parquet within bounds: every kind of column as Arrow reads it, and small files that hold too much refused by row."""

from __future__ import annotations

import base64
import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources import parquet
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.sources.groups import GroupFile
from lightning_rm.data.sources.readers import read_file
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.groups import prepare_groups
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs

KINDS: dict[str, Any] = {
    "text": pa.array(["é", None, ""]),
    "bytes": pa.array([b"\xff", None, b""]),
    "decimal": pa.array([decimal.Decimal("1.5"), None, None]),
    "time": pa.array([datetime.datetime(2020, 1, 1), None, None]),
    "texts": pa.array([["a", None], None, []]),
    "lists": pa.array([[["x"], []], None, [None]]),
    "struct": pa.array([{"a": "q", "b": [1]}, {"a": "r", "b": []}, {"a": "s", "b": [2, 3]}]),
    "null": pa.nulls(3),
    "number": pa.array([1, None, 3]),
    "map": pa.array([[("k", "v")], None, []], pa.map_(pa.string(), pa.string())),
    "two": pa.array([["a", "b"], ["c", None], ["d", "e"]], pa.list_(pa.string(), 2)),
    "large": pa.array([["big"], None, []], pa.large_list(pa.large_string())),
    "dictionary": pa.array(["d", None, "d"]).dictionary_encode(),
    "view": pa.array(["v", None, "w"], pa.string_view()),
    "view of a list": pa.array([["v", None], None, []], pa.list_view(pa.string())),
    "large view of a list": pa.array([[{"a": "q"}], None, []], pa.large_list_view(pa.struct([("a", pa.string())]))),
}
VIEWS: dict[str, Any] = {
    "texts": pa.large_list(pa.string_view()),
    "lists": pa.list_(pa.large_list(pa.string_view())),
    "struct": pa.struct([("a", pa.string_view()), ("b", pa.list_(pa.int64()))]),
    "map": pa.map_(pa.string(), pa.string_view()),
    "two": pa.list_(pa.string_view(), 2),
    "bytes": pa.binary_view(),
    "view of a list": pa.list_view(pa.string_view()),
}
"""What writers such as polars say that some of these are; Arrow reads it, and cannot write all of it."""
NESTED = {name: kind for name, kind in VIEWS.items() if name not in ("bytes", "view of a list")}
"""Those of texts within others, in a table without further views: one view had all columns stay in dictionaries."""


def written(path: Path, table: Any, **options: Any) -> Path:
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**30, **options)
    return path


def often(text: str, *others: str | None, times: int) -> Any:
    """A column of one text many times, written once, and then others."""
    indices = [0] * times + [1 + place for place in range(len(others))]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array([text, *others]))


def foreign(path: Path, table: Any, kinds: dict[str, Any], **options: Any) -> Path:
    """A file whose writer says that columns are of other types."""
    told = pa.schema([field.with_type(kinds.get(field.name, field.type)) for field in table.schema])
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(told.serialize().to_pybytes()).decode()})
        writer.write_table(table, **options)
    return path


def pairs(chosen: Any) -> Any:
    return pa.table({"prompt": ["q"] * len(chosen), "chosen": chosen, "rejected": ["b"] * len(chosen)})


@pytest.mark.parametrize("kinds", [{}, VIEWS, NESTED])
@pytest.mark.parametrize("made_bytes", [10, 10**6])
@pytest.mark.parametrize("group_rows", [2, 3])
def test_rows_are_those_of_arrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: dict[str, Any], made_bytes: int, group_rows: int
) -> None:
    monkeypatch.setattr(parquet, "MADE_BYTES", made_bytes)
    columns = {name: column for name, column in KINDS.items() if kinds is not NESTED or "view" not in name}
    path = foreign(tmp_path / "a.parquet", pa.table(columns), kinds, row_group_size=group_rows)
    assert all(pq.read_schema(path).field(name).type == kind for name, kind in kinds.items())
    assert list(parquet.parquet_rows(path)) == pq.read_table(path).to_pylist(maps_as_pydicts="strict")


def test_turns_of_views_are_read_as_others_are(tmp_path: Path) -> None:
    """The gap of the second turn's name is taken out, as in every list of structs; so it is in views of lists."""

    def turns(text: Any) -> Any:
        return pa.struct([("role", text), ("name", text)])

    rows = [[{"role": "user", "name": "a"}], [{"role": "assistant", "name": None}], None]
    table = pa.table({"x": pa.array(rows, pa.large_list(turns(pa.string())))})
    expected = [{"x": [{"role": "user", "name": "a"}]}, {"x": [{"role": "assistant"}]}, {"x": None}]
    for lists in (pa.list_, pa.large_list, pa.list_view):
        path = foreign(tmp_path / "a.parquet", table, {"x": lists(turns(pa.string_view()))})
        assert list(parquet.parquet_rows(path)) == expected


def test_a_row_that_holds_too_much_is_refused_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 rows of 3 MiB in a file of a kilobyte; with room for 4 MiB one is made at a time, a longer one not at all."""
    monkeypatch.setattr(parquet, "MADE_BYTES", 4 * 2**20)
    monkeypatch.setattr(parquet, "MAX_LINE_BYTES", 4 * 2**20)
    made: list[int] = []
    plain = parquet.arrow_rows

    def counted(batch: Any) -> Any:
        made.append(batch.num_rows)
        return plain(batch)

    monkeypatch.setattr(parquet, "arrow_rows", counted)
    text = "x" * (3 * 2**20)
    texts = often(text, text * 2, "ok", times=4)
    turns = pa.StructArray.from_arrays([pa.array(["assistant"] * len(texts)), texts], ["role", "content"])
    lists = pa.ListArray.from_arrays(pa.array(range(len(texts) + 1), pa.int32()), turns)
    for column in (texts, lists):
        made.clear()
        path = written(tmp_path / "a.parquet", pairs(column), store_schema=False)
        assert path.stat().st_size < 3000
        rows = list(read_file(path))
        assert made == [1, 1, 1, 1, 1]
        assert rows[4] == BadRow(f"{path} row 4", "too large", "the row has 6 MiB, and none of more than 4 MiB is read")
        assert [not isinstance(row, BadRow) for row in rows] == [True] * 4 + [False, True]


def test_a_group_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FREE_EXPANSION_BYTES", 2**20)
    path = written(tmp_path / "a.parquet", pairs(pa.array(["x" * 2**22])), use_dictionary=False)
    with pytest.raises(
        ValueError, match=r"a\.parquet cannot be read as Parquet: a row group unpacks to more than 200 "
    ):
        list(read_file(path))


def test_bytes_of_a_fixed_size_are_counted_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 of 64 KiB in a file of two kilobytes, of which a dictionary holds one; what is read counts by its size."""
    wide = pa.binary(2**16)
    for column in (pa.array([b"x" * 2**16] * 100, wide), pa.array([[b"x" * 2**16] * 100], pa.list_(wide))):
        path = written(tmp_path / "a.parquet", pairs(column))
        assert path.stat().st_size < 4000
        assert len(list(read_file(path))) == len(column)
        with monkeypatch.context() as patch:
            patch.setattr(parquet, "FREE_EXPANSION_BYTES", 2**20)
            with pytest.raises(ValueError, match=r"a row group unpacks to more than 200 times its size"):
                list(read_file(path))
    monkeypatch.setattr(parquet, "MAX_LINE_BYTES", 2**15)
    monkeypatch.setattr(parquet, "MADE_BYTES", 2**15)
    path = written(tmp_path / "a.parquet", pairs(pa.array([b"x" * 2**16, b"x" * 2**16], wide)))
    assert [isinstance(row, BadRow) for row in read_file(path)] == [True, True]


def test_a_list_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_RUN_VALUES", 10**4)
    equal = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**5, np.int32)), pa.array(["a"]))
    for items in (equal, pa.nulls(10**5, pa.int64())):
        column = pa.ListArray.from_arrays(pa.array([0, 10**5], pa.int32()), items)
        path = written(tmp_path / "a.parquet", pairs(column), store_schema=False)
        with pytest.raises(ValueError, match=r"chosen\.list\.element has 100,000 items in the lists of a row group"):
            list(read_file(path))
    other = pa.array([list(range(10**5))])  # as many, of which each takes its bytes
    assert len(list(read_file(written(tmp_path / "b.parquet", pairs(other), use_dictionary=False)))) == 1


def test_a_map_is_an_object_without_what_arrow_fills_in(tmp_path: Path) -> None:
    """Of its own keys nothing is filled in; of the structs that they lead to it is."""
    schema = pa.struct([("type", pa.string()), ("unit", pa.string())])
    tool = pa.struct([("name", pa.string()), ("parameters", pa.map_(pa.string(), schema))])
    parameters = [("city", {"type": "s"}), ("heat", {"type": "n", "unit": "C"})]
    table = pairs(["a"]).append_column("tools", pa.array([[{"name": "f", "parameters": parameters}]], pa.list_(tool)))
    (row,) = FileSource(written(tmp_path / "a.parquet", table))
    assert isinstance(row, PairRow)
    assert row.tools == ({"name": "f", "parameters": {"city": {"type": "s"}, "heat": {"type": "n", "unit": "C"}}},)
    twice = pa.array([[("k", "v"), ("k", "w")]], pa.map_(pa.string(), pa.string()))
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet: a map holds a key twice"):
        list(FileSource(written(tmp_path / "a.parquet", pairs(["a"]).append_column("more", twice))))


def test_what_a_table_does_not_say_is_decided_by_rule_and_counted(tmp_path: Path) -> None:
    """Row 0 means its nulls, row 1 has no such keys, and the table has one row for both; row 2 is in no doubt."""

    def row(argument: dict[str, Any], schema: dict[str, Any], answer: str) -> dict[str, Any]:
        call = {"function": {"name": "f", "arguments": {"city": "Rome", **argument}}}
        said = {"role": "assistant", "content": answer, "tool_calls": [call]}
        tool = {"name": "f", "x": {"type": "s", **schema}}
        return {"prompt": "q", "chosen": [said], "rejected": other, "tools": [tool]}

    other = [{"role": "assistant", "content": "b"}]
    rows = [row({"unit": None}, {"default": None}, "1"), row({}, {}, "2"), row({"unit": "C"}, {"default": "z"}, "3")]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    read = [found for found in FileSource(path) if isinstance(found, PairRow)]
    assert [found.doubts for found in read] == [("default", "unit"), ("default", "unit"), ()]
    assert read[0].tools == read[1].tools == ({"name": "f", "x": {"type": "s"}},)
    assert read[2].tools == ({"name": "f", "x": {"type": "s", "default": "z"}},)
    report = prepare_pairs(FileSource(path), world_tokenizer(), TokenizePolicy(), tmp_path).report
    assert report.changes["null or missing, the table does not say"] == 2
    assert f"{path} row 0: default, unit" in str(report)
    groups = [{"prompt": "q", "responses": [row["chosen"], other], "tools": row["tools"]} for row in rows]
    path = tmp_path / "groups.parquet"
    pq.write_table(pa.Table.from_pylist(groups), path)
    report = prepare_groups(GroupFile(path), world_tokenizer(), TokenizePolicy(), tmp_path).report
    assert report.changes["null or missing, the table does not say"] == 2
    assert f"{path} row 0: default, unit" in str(report)
