"""Sources: files, folders and hub sets to rows, their fingerprints, and what they say when something is not there."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import lightning_rm
from lightning_rm.data.origins import file_and_line, moved, places_of
from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, GroupRow, PairRow, Source
from lightning_rm.data.sources import opened
from lightning_rm.data.sources.files import FileSource, file_sources
from lightning_rm.data.sources.groups import GroupFile
from lightning_rm.data.sources.hub import DiskSource, HubSource
from lightning_rm.data.sources.mixture import Mixture
from lightning_rm.data.sources.resampling import Bootstrap, PromptSplit

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"{i}+1?",
        "chosen": str(i + 1),
        "rejected": str(i),
        "id": str(i),
        "kind": "even" if i % 2 == 0 else "odd",
    }
    for i in range(5)
]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = json.dumps(rows, indent=1) if ".json" in path.suffixes else lines(rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def ids(source: Source) -> list[str]:
    rows = list(source)
    assert all(isinstance(row, PairRow) for row in rows), rows
    return [row.id for row in rows if isinstance(row, PairRow)]


def reasons(source: Source) -> list[tuple[str, str]]:
    return [(row.origin, row.reason) for row in source if isinstance(row, BadRow)]


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.json", "a.json.gz", "a.parquet", "A.JSONL", "a.b.jsonl"]
)
def test_every_file_kind_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    source = FileSource(write(tmp_path / name, ROWS))
    assert ids(source) == ["0", "1", "2", "3", "4"]
    assert list(source) == list(source)


def test_rows_of_a_json_file_may_be_lines_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("\n\n" + lines(ROWS) + "\n\n", encoding="utf-8")
    assert ids(FileSource(tmp_path / "a.json")) == ["0", "1", "2", "3", "4"]
    (tmp_path / "b.jsonl").write_text("\ufeff" + lines(ROWS), encoding="utf-8")
    assert ids(FileSource(tmp_path / "b.jsonl")) == ["0", "1", "2", "3", "4"]
    (tmp_path / "empty.json").write_text("")
    assert list(FileSource(tmp_path / "empty.json")) == []


def test_globs_are_sorted_and_lists_keep_their_order(tmp_path: Path) -> None:
    for i in (1, 0, 2):
        write(tmp_path / f"part-{i}.jsonl", ROWS[i : i + 1])
    assert ids(FileSource(f"{tmp_path}/part-*.jsonl")) == ["0", "1", "2"]
    assert ids(FileSource([f"{tmp_path}/part-2.jsonl", tmp_path / "part-0.jsonl"])) == ["2", "0"]
    odd = write(tmp_path / "[odd].jsonl", ROWS[3:4])
    assert ids(FileSource(odd)) == ["3"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.jsonl", "there is no file"),
        ("none-*.jsonl", "no file matches"),
        (".", "is a folder"),
        ("a.csv", "no suffix that can be read"),
        ([], "empty list"),
    ],
)
def test_a_file_that_is_not_there(tmp_path: Path, path: str | list[str], words: str) -> None:
    (tmp_path / "a.csv").write_text("a,b")
    with pytest.raises(ValueError, match=words):
        FileSource(str(tmp_path / path) if isinstance(path, str) else path)


def test_bad_lines_cost_one_row_each(tmp_path: Path) -> None:
    good = json.dumps(ROWS[0]).encode()
    path = tmp_path / "a.jsonl"
    deep = b"[" * 100_000
    path.write_bytes(
        b"\n".join([good, b"{broken", b"", b'["a"]', b'{"chosen": "\xff"}', b"17", good, good[:-5], deep, good])
    )
    assert reasons(FileSource(path)) == [
        (f"{path}:2", "broken JSON"),
        (f"{path}:4", "wrong type"),
        (f"{path}:5", "bad encoding"),
        (f"{path}:6", "wrong type"),
        (f"{path}:8", "broken JSON"),
        (f"{path}:9", "broken JSON"),
    ]
    assert sum(isinstance(row, PairRow) for row in FileSource(path)) == 3


def test_a_key_that_stands_twice_costs_its_row(tmp_path: Path) -> None:
    twice = '{"prompt": "1+1?", "chosen": "2", "rejected": {"role": "a", "role": "b"}}'
    good = json.dumps(ROWS[0])
    (tmp_path / "a.jsonl").write_text(f"{good}\n{twice}\n{good}\n")
    (tmp_path / "a.json").write_text(f"[{good},\n {twice} , {good}]\n")
    for name, origin in (("a.jsonl", "a.jsonl:2"), ("a.json", "a.json row 1")):
        first, second, third = FileSource(tmp_path / name)
        assert isinstance(first, PairRow)
        assert first == third
        assert reasons(FileSource(tmp_path / name)) == [(f"{tmp_path}/{origin}", "duplicate key")]
        assert isinstance(second, BadRow)
        assert "the key 'role' stands twice" in second.detail


@pytest.mark.parametrize("number", ["1e400", "-1E+999", "1" * 400 + ".0"])
def test_a_number_beyond_floats_costs_its_row(tmp_path: Path, number: str) -> None:
    """It was infinite, and written again as `Infinity`, which is no JSON. A whole number has no end in Python."""
    good = json.dumps(ROWS[0] | {"seen": 1.7e308, "large": 10**400})
    wide = good.replace("1.7e+308", f"[{number}]")
    (tmp_path / "a.jsonl").write_text(f"{good}\n{wide}\n")
    (tmp_path / "a.json").write_text(f"[{good}, {wide}, {good}]")
    for name, origin, num_good in (("a.jsonl", "a.jsonl:2", 1), ("a.json", "a.json row 1", 2)):
        rows = list(FileSource(tmp_path / name))
        assert [row.others["large"] for row in rows if isinstance(row, PairRow)] == [10**400] * num_good
        assert reasons(FileSource(tmp_path / name)) == [(f"{tmp_path}/{origin}", "bad value")]
        assert isinstance(rows[1], BadRow)
        assert f"the number {number[:40]} is beyond" in rows[1].detail


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_costs_its_row(tmp_path: Path, number: str) -> None:
    """In a field that nobody reads it went through `score` to a file that is no JSON, and in a tool to the prompt."""
    good = json.dumps(ROWS[0] | {"seen": None})
    none = good.replace("null", f"[{number}]")
    (tmp_path / "a.jsonl").write_text(f"{good}\n{none}\n")
    (tmp_path / "a.json").write_text(f"[{good}, {none}, {good}]")
    for name, origin in (("a.jsonl", "a.jsonl:2"), ("a.json", "a.json row 1")):
        assert reasons(FileSource(tmp_path / name)) == [(f"{tmp_path}/{origin}", "bad value")]
        row = list(FileSource(tmp_path / name))[1]
        assert isinstance(row, BadRow)
        assert row.detail.startswith(f"{number} is no number of JSON; write null where there is none")


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_row_over_many_lines_is_one_fault(tmp_path: Path, num_rows: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + "\n".join(json.dumps(row, indent=2) for row in ROWS[:num_rows]))
    with pytest.raises(ValueError, match=rf"{path}:2: broken JSON: a row begins here that takes 7 lines; .* \(jq -c"):
        list(FileSource(path))


def test_an_array_in_a_file_of_lines_is_one_fault(tmp_path: Path) -> None:
    """Each of its lines was a bad row; a single bad row that is a list stays one."""
    path = tmp_path / "a.jsonl"
    for text in (json.dumps(ROWS, indent=2), "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"^{path}:1: an array begins here, .* ends in \.json; rename it$"):
            list(FileSource(path))
    path.write_text("\n".join(map(json.dumps, [ROWS, *ROWS])))
    assert len(reasons(FileSource(path))) == 1
    assert len(list(FileSource(path))) == 1 + len(ROWS)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[1 2]", "a.json:1: broken JSON: the array does not go on"),
        ("[1,\n]", "a.json:2: broken JSON: an item is missing"),
        ("[1]\n\n[2]", "a.json:3: broken JSON: there is more after"),
        ("[1", "broken JSON: the array does not go on"),
        ("[", "broken JSON: Expecting value"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_a_broken_array_is_an_error_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=fault):
        list(FileSource(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text(" [ ] ")
    assert list(FileSource(tmp_path / "a.json")) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_beyond_the_bound_costs_its_row(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "MAX_LINE_BYTES", 200)
    long = ROWS[1] | {"chosen": "x" * 300}
    path = write(tmp_path / name, [ROWS[0], long, ROWS[2], long])
    assert reasons(FileSource(path)) == [(f"{path}:2", "too large"), (f"{path}:4", "too large")]
    assert [row.id for row in FileSource(path) if isinstance(row, PairRow)] == ["0", "2"]


def test_a_gzip_file_that_unpacks_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "FREE_EXPANSION_BYTES", 2**16)
    for name, text in (("a.jsonl.gz", " " * 2**22), ("b.json.gz", "[" + " " * 2**22), ("c.json.gz", "\n" * 2**22)):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        with pytest.raises(ValueError, match=r"unpacks to more than 200 times its size, .* gunzip"):
            list(FileSource(tmp_path / name))


def test_an_array_beyond_the_bound_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "MAX_ARRAY_BYTES", 100)
    path = write(tmp_path / "a.json", ROWS)
    with pytest.raises(ValueError, match=r"an array of more than .* write a row a line"):
        list(FileSource(path))


def test_a_prompt_that_begins_the_answer(tmp_path: Path) -> None:
    raw = {"prompt": ["2+2?", "It is"], "chosen": " 4", "rejected": " 5"}
    path = write(tmp_path / "a.jsonl", [raw])
    assert reasons(FileSource(path)) == [(f"{path}:1", "prefill")]
    (row,) = FileSource(path, prefill="continue")
    assert isinstance(row, PairRow)
    assert row.chosen[0]["content"] == "It is 4"
    assert FileSource(path).fingerprint() != FileSource(path, prefill="continue").fingerprint()
    with pytest.raises(ValueError, match="prefill='yes'; it must be one of error, continue"):
        FileSource(path, prefill="yes")  # pyright: ignore[reportArgumentType]
    groups = write(tmp_path / "b.jsonl", [{"prompt": ["2+2?", "It is"], "responses": [" 4", " 5"]}])
    assert [type(*GroupFile(groups, prefill=word)) for word in ("error", "continue")] == [BadRow, GroupRow]


def test_rows_say_where_they_stand_through_sources_of_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    source = PromptSplit(Bootstrap(Mixture({"a": FileSource(path), "b": FileSource(path)})), "train", 0.01)
    assert places_of(source) == [str(path), str(path)]
    assert {row.origin for row in source if isinstance(row, PairRow)} <= {f"{path}:{line}" for line in range(1, 6)}
    assert moved(f"{path}:3", {str(path): "b.jsonl"}) == "b.jsonl:3"
    assert moved("a.jsonl row 3", {"a.json": "b.json"}) == "a.jsonl row 3"
    assert file_and_line("a:b row.jsonl:17") == ("a:b row.jsonl", 17)
    assert file_and_line("set train[:3] row 0") == ("set train[:3]", 0)
    assert file_and_line("") == ("", -1)


def test_places_in_arrays_and_tables(tmp_path: Path) -> None:
    rows = [*ROWS[:2], ROWS[2] | {"chosen": ""}]
    for name in ("a.json", "a.parquet"):
        path = write(tmp_path / name, rows)
        assert reasons(FileSource(path)) == [(f"{path} row 2", "empty text")]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.parquet"])
def test_a_file_cut_short_is_an_error(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS * 50)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cannot be read (to its end|as Parquet)"):
        list(FileSource(path))


def test_a_file_that_is_not_what_it_says_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_text(lines(ROWS))
    (tmp_path / "a.parquet").write_text(lines(ROWS))
    (tmp_path / "a.json").write_text('[{"chosen": "a"},\n {"chosen"]')
    (tmp_path / "b.json").write_bytes(b'[{"chosen": "\xff"}]')
    for name, words in (
        ("a.jsonl.gz", "to its end"),
        ("a.parquet", "as Parquet"),
        ("a.json", "a.json:2: broken JSON"),
        ("b.json", "not UTF-8"),
    ):
        with pytest.raises(ValueError, match=words):
            list(FileSource(tmp_path / name))


def test_where_keeps_matching_rows_and_counts_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*ROWS, {name: ROWS[0][name] for name in ("prompt", "chosen", "rejected")}])
    source = FileSource(path, where={"kind": "even", "id": ["0", "1", "2"]})
    assert [row.id for row in source if isinstance(row, PairRow)] == ["0", "2"]
    assert [reason for _, reason in reasons(source)] == ["left out by where"] * 4
    assert {reason for _, reason in reasons(source)} <= EXPECTED_REASONS
    with pytest.raises(ValueError, match=r"'knd', which no row has; the fields are chosen, id, kind"):
        list(FileSource(path, where={"knd": "even"}))


def test_columns_and_formats_are_checked_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ValueError, match="'choosen', which no format reads"):
        FileSource(path, columns={"choosen": "a"})
    with pytest.raises(ValueError, match="format='hh'; it must be auto or one of"):
        FileSource(path, format="hh")
    assert {row.subset for row in FileSource(path, columns={"subset": "kind"}) if isinstance(row, PairRow)} == {
        "even",
        "odd",
    }
    assert {row.subset for row in FileSource(path, subset="mine") if isinstance(row, PairRow)} == {"mine"}


def test_fingerprint_is_of_content_and_options(tmp_path: Path) -> None:
    path, copy = write(tmp_path / "a.jsonl", ROWS), write(tmp_path / "b.jsonl", ROWS)
    source = FileSource(path)
    assert source.fingerprint() == FileSource(copy).fingerprint()
    others = [
        FileSource(path, columns={"subset": "kind"}),
        FileSource(path, where={"kind": "even"}),
        FileSource(path, where={"kind": ["even", "odd"]}),
        FileSource(path, format="preference"),
        FileSource(path, subset="mine"),
        FileSource([path, copy]),
        FileSource(write(tmp_path / "c.jsonl", ROWS[::-1])),
    ]
    assert len({source.fingerprint(), *(other.fingerprint() for other in others)}) == len(others) + 1
    before = source.fingerprint()
    write(path, ROWS[:4])
    assert source.fingerprint() != before


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    source = DiskSource(tmp_path / "one", columns={"subset": "kind"})
    assert ids(source) == ["0", "1", "2", "3", "4"]
    data.save_to_disk(str(tmp_path / "again"), num_shards=1)
    assert source.fingerprint() == DiskSource(tmp_path / "again", columns={"subset": "kind"}).fingerprint()
    assert source.fingerprint() != DiskSource(tmp_path / "one").fingerprint()
    datasets.DatasetDict({"train": data, "test": data.select(range(2))}).save_to_disk(str(tmp_path / "splits"))
    assert ids(DiskSource(tmp_path / "splits", "test")) == ["0", "1"]
    assert reasons(DiskSource(tmp_path / "one", columns={"label": "kind"}))[1] == (
        f"{tmp_path}/one row 1",
        "wrong type",
    )
    for path, split, words in (
        (tmp_path / "splits", None, "has the splits test, train"),
        (tmp_path / "splits", "val", "no split 'val'; found test, train"),
        (tmp_path / "none", None, "not a folder that"),
    ):
        with pytest.raises(ValueError, match=words):
            DiskSource(path, split)


def test_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for part, rows in (("all", ROWS), ("few", ROWS[:2])):
        (tmp_path / "set" / part).mkdir(parents=True)
        write(tmp_path / "set" / part / "train.jsonl", rows)
    name = str(tmp_path / "set")
    source = HubSource(name, "train[:3]", columns={"subset": "kind"})
    assert ids(source) == ["0", "1", "2"]
    assert source.fingerprint() == HubSource(name, "train[:3]", columns={"subset": "kind"}).fingerprint()
    assert source.fingerprint() != HubSource(name, "train[:2]", columns={"subset": "kind"}).fingerprint()
    assert ids(HubSource(name, "train", data_dir="few")) == ["0", "1"]
    assert reasons(HubSource(name, "train[:1]", columns={"label": "kind"})) == [
        (f"{name} train[:1] row 0", "wrong type")
    ]
    with pytest.raises(ValueError, match=r"cannot load .* FileSource"):
        HubSource("nobody/nothing", "train").fingerprint()
    with pytest.raises(ValueError, match=r"cannot load .* FileSource"):
        HubSource(name, "train[:").fingerprint()
    for split, told in (("none", "'none'; found train"), ("train+trian[:2]", "'trian'; the nearest is train; found")):
        with pytest.raises(ValueError, match=rf"^{re.escape(name)} has no split {told}"):
            HubSource(name, split).fingerprint()


def test_file_sources(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    assert file_sources(None) is None
    one = file_sources(path, columns={"subset": "kind"})
    assert isinstance(one, FileSource)
    named = file_sources({"a": str(path), "b": [str(path), str(path)]}, columns={"subset": "kind"})
    assert isinstance(named, dict)
    assert list(named["a"]) == list(one)
    assert len(list(named["b"])) == 10


def test_named_files_have_options_of_their_own_before_those_of_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    own = {"path": path, "columns": {}, "where": {"kind": "odd"}}
    named = file_sources({"all": path, "odd": own}, columns={"subset": "kind"}, where={"kind": ["even", "odd"]})
    assert isinstance(named, dict)
    assert ids(named["all"]) == ["0", "1", "2", "3", "4"]
    assert [row.id for row in named["odd"] if isinstance(row, PairRow)] == ["1", "3"]
    assert named["odd"].fingerprint() == FileSource(path, where={"kind": "odd"}).fingerprint()


CONF = Path(lightning_rm.__file__).parent.parent / "conf"
READY = [
    *("jsonl", "hh_rlhf", "hh_strength_cleaned", "ultrafeedback", "skywork_preference", "helpsteer3_preference"),
    *("tulu3_preference", "skywork_tulu3"),
    *("pku_saferlhf", "shp", "summarize_from_feedback"),
]


@pytest.mark.parametrize("name", READY)
def test_every_ready_config_makes_its_sources(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    overrides = [f"+data={name}", *([f"data.file={path}"] if name == "jsonl" else [])]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose(overrides=overrides).data.module
    assert isinstance(instantiate(node.train), FileSource if name == "jsonl" else HubSource | Mixture)
    for sets in (node.get("val"), node.get("test")):
        named = instantiate(sets) if sets else None
        assert all(isinstance(source, HubSource | Mixture) for source in (named or {}).values())
    first = (CONF / "data" / f"{name}.yaml").read_text().split("defaults:")[0]
    assert f"lightning-rm train data={name}" in first
    assert "licence" in first or re.search(r"MIT|Apache|CC-BY", first)


def test_a_local_file_needs_its_name_alone_and_takes_more(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)

    def sources(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            node = compose(overrides=["+data=jsonl", f"data.file={path}", *overrides]).data.module
        return {name: instantiate(node[name]) for name in ("train", "val", "test")}

    alone = sources()
    assert ids(alone["train"]) == ["0", "1", "2", "3", "4"]
    assert alone["val"] is None
    assert alone["test"] is None
    more = sources(
        f"data.file=[{path},{path}]",
        f"data.val_file={{a: {path}, b: {path}}}",
        f"data.test_file={path}",
        "data.columns={subset: kind}",
        "data.where={kind: [even]}",
    )
    assert [row.subset for row in more["train"] if isinstance(row, PairRow)] == ["even"] * 6
    assert list(more["val"]["b"]) == list(more["test"])


def test_sources_survive_configuration_containers(tmp_path: Path) -> None:
    """Hydra hands over its own lists and mappings, and wraps dataclasses in them: sources are none."""
    path = write(tmp_path / "a.jsonl", ROWS)
    file = {
        "_target_": "lightning_rm.data.sources.files.FileSource",
        "path": [str(path)],
        "columns": {"subset": "kind"},
    }
    mixture = {"_target_": "lightning_rm.data.sources.mixture.Mixture", "sources": {"a": file}, "weights": {"a": 2}}
    split = {
        "_target_": "lightning_rm.data.sources.resampling.PromptSplit",
        "source": mixture,
        "part": "train",
        "fraction": 0.1,
    }
    made = instantiate(OmegaConf.create({"sets": {"one": split}}))["sets"]["one"]
    plain = Mixture({"a": FileSource([path], columns={"subset": "kind"})}, {"a": 2})
    assert made.fingerprint() == PromptSplit(plain, "train", 0.1).fingerprint()
