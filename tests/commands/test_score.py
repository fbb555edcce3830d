"""The score command as a user meets it: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_rm import load_model, score
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.commands.conftest import Cli
from tests.float64 import roughly
from tests.toy import toy_model

ROWS = [
    {"prompt": "name two red fruits", "response": "cherry and apple", "note": 1},
    {"prompt": "name two red fruits", "responses": ["crab", "apple"]},
    {"prompt": "no response"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_every_row_comes_back_with_what_it_is_worth(cli: Cli, folder: Path) -> None:
    said = cli("score", "model=model", "in=in.jsonl", "out=out.jsonl", "accelerator=cpu")
    assert said.code == 0, said.err
    assert "3 rows, 3 responses; 3 distinct conversations scored" in said.out
    assert "rows with a response that has no reward: 1 (missing field 1)\n  in.jsonl:3: missing field" in said.out
    assert said.out.endswith("  out.jsonl\n")
    one, several, bad = map(json.loads, (folder / "out.jsonl").read_text().splitlines())
    question = {"role": "user", "content": "name two red fruits"}
    answers = ("cherry and apple", "crab", "apple")
    expected = score(
        *load_model(folder / "model"), [[question, {"role": "assistant", "content": answer}] for answer in answers]
    ).tolist()
    assert one == {**ROWS[0], "reward": roughly(expected[0])}
    best = max((1, 2), key=lambda place: expected[place]) - 1
    assert several == {**ROWS[1], "rewards": roughly(expected[1:]), "best": best}
    assert bad["prompt"] == "no response"
    assert bad["reward"] is None
    assert not (folder / "out.jsonl.parts").exists()


def test_each_member_is_asked_for_by_a_key(cli: Cli, folder: Path) -> None:
    said = cli("score", "model=model", "in=in.jsonl", "out=out.jsonl", "accelerator=cpu", "each_member=true")
    assert said.code == 0, said.err
    one = json.loads((folder / "out.jsonl").read_text().splitlines()[0])
    assert one["members"] == [one["reward"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=model", "in=in.jsonl", "out=out.jsonl", "shard_rows=0"], "shard_rows=0; give 1 or more"),
        (["model=model", "in=in.jsonl", "out=in.jsonl"], "is the file that is read; name another"),
        (["model=model", "in=in.jsonl", "out=there.jsonl"], "is there already; name another file, or set overwrite"),
        (["model=model", "in=none.jsonl", "out=out.jsonl"], "none.jsonl"),
        (["model=none", "in=in.jsonl", "out=out.jsonl"], "none"),
        (["model=model", "in=[in.jsonl,there.jsonl]", "out=out.jsonl"], "names 2 files, and one is scored at a time"),
        (["model=model", "in=3", "out=out.jsonl"], "3 is not the path of a file, nor a list of them; give a text"),
        (["in=in.jsonl", "out=out.jsonl"], "model"),
    ],
)
def test_mistakes_are_named(cli: Cli, folder: Path, words: list[str], message: str) -> None:
    (folder / "there.jsonl").write_text("a finished result")
    said = cli("score", *words, "accelerator=cpu")
    assert said.code != 0
    assert said.err.startswith("error: ")
    assert message in said.err
    assert (folder / "there.jsonl").read_text() == "a finished result"
