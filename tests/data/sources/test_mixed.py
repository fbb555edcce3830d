"""Several sets from one setting: what a configuration writes is the mixture that Python makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.data.rows import PairRow, Source
from lightning_rm.data.sets import as_source
from lightning_rm.data.sources.files import FileSource, file_sources
from lightning_rm.data.sources.groups import response_files
from lightning_rm.data.sources.hub import HubSource, hub_sources
from lightning_rm.data.sources.mixed import mixed_files, mixed_hub
from lightning_rm.data.sources.mixture import Mixture


def file_of(folder: Path, name: str, num: int = 20, answer: str = "chosen") -> str:
    path = folder / f"{name}.jsonl"
    rows = [{"prompt": f"{name} {n}", answer: "Yes.", "rejected": "No.", "kind": n % 2} for n in range(num)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def subsets(source: Source | None) -> dict[str, int]:
    assert source is not None
    rows = [row for row in source if isinstance(row, PairRow)]
    return {name: sum(row.subset == name for row in rows) for name in dict.fromkeys(row.subset for row in rows)}


def test_one_path_is_one_source_and_none_is_none(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a")
    assert mixed_files(None) is None
    one = mixed_files(path, where={"kind": 0})
    assert isinstance(one, FileSource)
    assert one.fingerprint() == FileSource(path, where={"kind": 0}).fingerprint()


def test_named_files_are_the_mixture_of_them(tmp_path: Path) -> None:
    chat, code = file_of(tmp_path, "chat"), file_of(tmp_path, "code")
    mixed = mixed_files({"chat": chat, "code": [code]}, {"code": 2.5})
    asked = Mixture({"chat": FileSource(chat), "code": FileSource([code])}, {"code": 2.5})
    assert isinstance(mixed, Mixture)
    assert list(mixed) == list(asked)
    assert mixed.fingerprint() == asked.fingerprint()
    assert mixed.places == [chat, code]
    found = subsets(mixed)
    assert found["chat"] == 20
    assert 40 < found["code"] < 60


def test_a_set_has_options_of_its_own_before_those_of_all(tmp_path: Path) -> None:
    chat, code = file_of(tmp_path, "chat"), file_of(tmp_path, "code", answer="better")
    own = {"path": code, "columns": {"chosen": "better"}, "where": {"kind": [0, 1]}}
    assert subsets(mixed_files({"chat": chat, "code": own}, where={"kind": 0})) == {"chat": 10, "code": 20}


def test_sets_of_the_hub_are_mixed_in_the_same_way(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file_of(tmp_path / name, "train")
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert mixed_hub(None) is None
    assert isinstance(mixed_hub(one), HubSource)
    mixed = mixed_hub({"one": one, "two": {"name": two, "split": "train[:5]"}}, weights={"one": 2})
    assert subsets(mixed) == {"one": 40, "two": 5}


def test_sets_of_the_hub_are_evaluated_on_by_another_split(tmp_path: Path) -> None:
    """A split alone is of what is trained on, whose own splits are of training; other sets have splits of their own."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        file_of(tmp_path / name, "train")
        file_of(tmp_path / name, "test", 6)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    trained = {"a": one, "b": {"name": two, "split": "train[:5]", "where": {"kind": 0}}}
    assert hub_sources(None, train=trained) is None
    alone = hub_sources(None, "test", train=one)
    assert isinstance(alone, HubSource)
    assert subsets(alone) == {"all": 6}
    several = hub_sources(None, "test", train=trained)
    assert isinstance(several, dict)
    assert {name: subsets(source) for name, source in several.items()} == {"a": {"all": 6}, "b": {"all": 3}}
    others = hub_sources({"c": {"name": two, "split": "test[:2]"}, "d": one}, "train", train=trained)
    assert isinstance(others, dict)
    assert {name: subsets(source) for name, source in others.items()} == {"c": {"all": 2}, "d": {"all": 20}}
    with pytest.raises(ValueError, match="one is read split by split; name one, split=train"):
        hub_sources(one, train=trained)


@pytest.mark.parametrize(
    ("path", "weights", "says"),
    [
        ({"a": {"path": "a.jsonl", "where": "code"}}, None, r"where='code'; give a mapping, where=\{FIELD: VALUE\}"),
        ({"a": "a.jsonl"}, {"a": True}, "the weight of 'a' is True; it must be a number, 0 or more"),
        ("a.jsonl", {"a": 0.5}, r"weights are of sets that have names: path=\{NAME: PATH, ...\}"),
        ("a.jsonl", 3, "weights are of sets that have names"),
        ({}, None, "a mixture has one source at least"),
        ({"a": "a.jsonl"}, {"b": 0.5}, "weights names 'b'; the sources are a"),
        ({"a": "a.jsonl"}, {"a": "half"}, "the weight of 'a' is 'half'; it must be a number, 0 or more"),
        ({"a": "a.jsonl"}, 3, r"weights are 3; give \{name: number\}"),
    ],
)
def test_what_cannot_be_mixed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, weights: Any, says: str
) -> None:
    file_of(tmp_path, "a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        mixed_files(path, weights)


@pytest.mark.parametrize("read", [mixed_files, file_sources, response_files])
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ({"a": {"file": "a.jsonl"}}, r"a has no path; it is a path, or \{path: ..., ...\} with any of columns, "),
        ({"a": None}, r"a has no path; it is a path, or"),
        ({"a": "a.jsonl", "b": {"path": "a.jsonl", "column": {}}}, "b has 'column'; it is a path, or"),
        ({"a": {"path": "a.jsonl", "columns": ["x"]}}, r"columns=\['x'\]; give a mapping, columns=\{FIELD: VALUE\}"),
        ({"path": "a.jsonl", "columns": {}}, r"a set with options of its own has a name: \{NAME: \{path: ..., ...\}\}"),
    ],
)
def test_named_files_of_every_kind_are_told_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any, path: Any, says: str
) -> None:
    file_of(tmp_path, "a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=says):
        read(path)


def test_named_sets_in_place_of_one_are_told_of_the_mixture(tmp_path: Path) -> None:
    given: Mapping[str, str] = {"a": file_of(tmp_path, "a"), "b": file_of(tmp_path, "b")}
    with pytest.raises(ValueError, match=r"train is of the type dict; .*; Mixture makes one source of several"):
        as_source(given, "train")  # pyright: ignore[reportArgumentType]
