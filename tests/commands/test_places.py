"""Words that name places: the same from whatever folder, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_rm.commands._choices import compose_choices
from lightning_rm.commands._places import whole_path, with_whole_paths, write_home, written
from lightning_rm.commands._words import parse


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that it works in, with two files, a folder of one more and a link to that."""
    (tmp_path / "parts").mkdir()
    for name in ("a.jsonl", "b c.jsonl", "parts/d.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to("parts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path.resolve()


@pytest.mark.parametrize(
    ("named", "whole"),
    [
        ("a.jsonl", "a.jsonl"),
        ("parts/../a.jsonl", "a.jsonl"),
        ("~/a.jsonl", "a.jsonl"),
        ("linked/d.jsonl", "parts/d.jsonl"),
        ("parts", "parts"),
        ("linked", "linked"),
        ("parts/..", "."),
        ("linked/*.jsonl", "parts/*.jsonl"),
        ("**/d.jsonl", "**/d.jsonl"),
    ],
)
def test_a_place_has_one_whole_path(named: str, whole: str, here: Path) -> None:
    assert whole_path(named) == str(here / whole)


@pytest.mark.parametrize("named", ["Qwen/Qwen3-0.6B", "none/*.jsonl", "{{ " + "x" * 300 + " }}", ""])
def test_a_name_of_nothing_here_stays(named: str, here: Path) -> None:
    assert whole_path(named) == named


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.file=a.jsonl", "HERE/a.jsonl"),
        ("+data.val_file=[a.jsonl,'b c.jsonl']", ["HERE/a.jsonl", "HERE/b c.jsonl"]),
        (
            "data.file={easy:a.jsonl,hard:{path:[parts/*.jsonl],subset:a.jsonl}}",
            {
                "easy": "HERE/a.jsonl",
                "hard": {"path": ["HERE/parts/*.jsonl"], "subset": "a.jsonl"},
            },
        ),
        ("data.file={two:[a.jsonl,parts/d.jsonl]}", {"two": ["HERE/a.jsonl", "HERE/parts/d.jsonl"]}),
        ("backbone.model={attn_implementation:parts,gguf_file:a.jsonl,compile:true}", None),
    ],
)
def test_all_that_a_word_names_is_whole(word: str, value: object, here: Path) -> None:
    """A subset, or an attention, of the name of a file is none."""
    value = value or {"attn_implementation": "parts", "gguf_file": "HERE/a.jsonl", "compile": True}
    (found,) = with_whole_paths([word])
    key, _, _ = word.partition("=")
    assert found == f"{key}={written(value)}".replace("HERE", str(here))
    assert with_whole_paths([found]) == [found]
    said = parse([found])[0].value()
    assert written(said) == written(value).replace("HERE", str(here))


def test_other_words_stay(here: Path) -> None:
    words = ["data=parts", "logger.project=parts", "backbone.path=Qwen/Qwen3-0.6B", "data.val_file=null", "~data.file"]
    words += ["data.file=a.jsonl,none.jsonl"]  # a sweep
    assert with_whole_paths(words) == words


def test_a_value_is_written_as_it_is_read() -> None:
    value = {"a": ['b"c', "d\\", 1, 0.5, None, True, {"e": "f: [g]"}]}
    assert parse([f"key={written(value)}"])[0].value() == value


def test_a_yaml_has_its_home_folder_written_out(here: Path) -> None:
    """`out: ~/x` made a folder that is called ~."""
    told = {"out": "~/a", "data": {"file": {"x.y": "~/${name}.jsonl"}}, "runs": ["~/a", "b/~/c", 1], "where": "~"}
    cfg = OmegaConf.create({**told, "name": "n", "given": "???"}, flags={"struct": True})
    write_home(cfg)
    assert cfg.out == f"{here}/a"
    assert cfg.data.file["x.y"] == f"{here}/n.jsonl"
    assert list(cfg.runs) == [f"{here}/a", "b/~/c", 1]
    assert cfg.where == "~"
    assert OmegaConf.is_missing(cfg, "given")


def test_a_yaml_has_hydras_folders_in_the_home_folder(here: Path) -> None:
    folder = here / "settings" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text('# @package _global_\nhydra: {run: {dir: "~/runs/${name}"}}\n')
    choice = compose_choices("train", parse(["experiment=mine"]), str(here / "settings"))
    assert choice.run_dir == f"{here}/runs/${{name}}"
    assert [one.value() for one in parse(choice.at_home)] == [choice.run_dir]
    assert choice.at_home[0].startswith("hydra.run.dir=")
    assert compose_choices("train", []).at_home == []
