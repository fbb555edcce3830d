"""Other trainers' layouts and what they have no place for; the file of our own has a place for everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lightning_rm.annotation.annotate import annotate
from lightning_rm.annotation.files import write_parquet
from lightning_rm.annotation.layouts import check_trl, write_fnlp, write_trl
from lightning_rm.annotation.voters import Voter
from lightning_rm.annotation.votes import Votes
from lightning_rm.data.formats.pairs import parse_row
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.toy import Rows, toy_model


def pair(number: int = 1, **fields: object) -> PairRow:
    raw = {"prompt": "2+2?", "chosen": "4", "rejected": "5", "id": str(number)} | fields
    row = parse_row(raw, f"a.jsonl:{number}")
    assert isinstance(row, PairRow), row
    return row


def voted(rows: list[PairRow], *voters: float) -> Votes:
    """Voter m gives the first response m's number more than the second, to every pair."""
    pairs = cast(PairDataset, SimpleNamespace(source_row=np.arange(len(rows))))
    rewards = np.tile(np.array([voters]), (len(rows), 1))
    return Votes(pairs, tuple(f"v{place}" for place in range(len(voters))), rewards + 1.0, np.ones_like(rewards))


def test_a_pair_stands_the_way_round_that_its_label_says(tmp_path: Path) -> None:
    """Votes 3 and 1 on (4, 5): strength 2. With label 0 the better response is 5, and the strength of (5, 4) is -2."""
    rows = [pair(1), replace(pair(2, clean=False), label=0.0)]  # such as a source of one's own gives
    write_trl(Rows(rows), voted(rows, 3.0, 1.0), tmp_path / "trl.jsonl")
    kept, turned = map(json.loads, (tmp_path / "trl.jsonl").read_text(encoding="utf-8").splitlines())
    assert [side["chosen"][0]["content"] for side in (kept, turned)] == ["4", "5"]
    assert [side["rejected"][0]["content"] for side in (kept, turned)] == ["5", "4"]
    assert (kept["margin"], turned["margin"]) == (2.0, -2.0)
    write_fnlp(Rows(rows), voted(rows, 3.0, 1.0), tmp_path / "fnlp.json")
    first, second = FileSource(tmp_path / "fnlp.json")
    assert isinstance(first, PairRow)
    assert isinstance(second, PairRow)
    assert (first.chosen, first.votes, first.clean) == (rows[0].chosen, (3.0, 1.0), None)
    assert (second.chosen, second.rejected) == (rows[1].rejected, rows[1].chosen)
    assert (second.votes, second.strength_mean, second.strength_std, second.clean) == ((-3.0, -1.0), -2.0, 1.0, True)


@pytest.mark.parametrize("write", [write_trl, write_fnlp])
def test_what_has_no_place_is_counted(write: Any, tmp_path: Path) -> None:
    rows = [pair(1, label=0.5), pair(2, label=0.3, weight=2.0), pair(3, margin=1.0), pair(4)]
    with pytest.warns(UserWarning, match="of the pairs") as warned:
        write(Rows(rows), voted(rows, 1.0), tmp_path / "out.json")
    said = [str(warning.message).split(": ", 1)[1] for warning in warned]
    assert said == [
        "1 of the pairs left out, since a label of one half prefers neither response (a.jsonl:1)",
        "1 of the pairs written as certain: there is no place for a label between 0 and 1 (a.jsonl:2)",
        "1 of the pairs written without their weight, for which there is no place (a.jsonl:2)",
        "1 of the pairs written without the margin that they have, for which there is no place (a.jsonl:3)",
    ]
    text = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert len(json.loads(text) if write is write_fnlp else text.splitlines()) == 3


def test_nothing_but_ties_is_a_file_without_rows(tmp_path: Path) -> None:
    rows = [pair(1, label=0.5)]
    for write, name, text in ((write_trl, "a.jsonl", ""), (write_fnlp, "a.json", "[\n]\n")):
        with pytest.warns(UserWarning, match="prefers neither response"):
            write(Rows(rows), voted(rows, 1.0), tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == text


def test_trl_gets_tools_and_arguments_of_the_template(tmp_path: Path) -> None:
    tools = [{"name": "f", "parameters": {"type": "object", "default": None}}]
    rows = [
        pair(1, tools=tools, chat_template_kwargs={"thinking": False}),
        pair(2, chat_template_kwargs={"thinking": 1}),
    ]
    write_trl(Rows(rows), voted(rows, 1.0), tmp_path / "trl.jsonl")
    first, second = map(json.loads, (tmp_path / "trl.jsonl").read_text(encoding="utf-8").splitlines())
    assert (json.loads(first["tools"]), first["chat_template_kwargs"]) == (tools, {"thinking": False})
    assert "tools" not in second  # a table has null there, and TRL reads JSON text or null
    other = [*rows, pair(3)]
    with pytest.raises(ValueError, match=r"a.jsonl:3: .* are none, and those of a.jsonl:1 are thinking; TRL reads"):
        check_trl(Rows(other), voted(other, 1.0).pairs)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"tools": [{"name": "f"}]}, "a.jsonl:1 has tools, for which"),
        ({"chat_template_kwargs": {"a": 1}}, "a.jsonl:1 has chat_template_kwargs, for which"),
        ({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}, "1 has the turns system,"),
        (
            {"chosen": [{"role": "assistant", "content": "4", "reasoning_content": "2, 2"}]},
            "a.jsonl:1, turn 1 has reasoning_content; the layout",
        ),
    ],
)
def test_what_the_papers_layout_cannot_hold_is_refused(
    fields: Mapping[str, object], fault: str, tmp_path: Path
) -> None:
    rows = [pair(**fields)]  # pyright: ignore[reportArgumentType]  # none of them is a number
    with pytest.raises(ValueError, match=fault):
        write_fnlp(Rows(rows), voted(rows, 1.0), tmp_path / "out.json")
    assert not list(tmp_path.iterdir())


def test_a_refusal_comes_before_anything_is_scored(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "voter", world_tokenizer())
    rows = Rows([pair(tools=[{"name": "f"}])])
    with pytest.raises(ValueError, match="has tools"):
        annotate(
            rows, [Voter("v", tmp_path / "voter")], tmp_path / "a.parquet", fnlp=tmp_path / "a.json", cache_dir=tmp_path
        )
    assert not (tmp_path / "a.parquet.parts").exists()


OTHERS = {
    "source": "wiki",
    "domain": "math",
    "length": 17,
    "share": 0.25,
    "is_long": True,
    "tags": ["a", None, {"b": 1}],
    "odd \ud800": "half \ud800",
}


def test_the_file_keeps_columns_and_keys_that_it_does_not_know(tmp_path: Path) -> None:
    chosen = [{"role": "assistant", "content": "4", "reasoning_content": "two and two", "score": {"a": [1, None]}}]
    rows = [
        pair(1, chosen=chosen, **OTHERS),
        pair(2, tied=True, share=1, tags="x", strength_quantile=0.5),
        pair(3, share=2),
    ]
    write_parquet(Rows(rows), voted(rows, 1.0), tmp_path / "out.parquet")
    read = list(FileSource(tmp_path / "out.parquet"))
    for row, again in zip(rows, read, strict=True):
        assert isinstance(again, PairRow)
        assert (again.chosen, again.label, again.tied, again.id) == (row.chosen, row.label, row.tied, row.id)
    first, second, _ = (row.others for row in cast(list[PairRow], read))
    assert {name: first[name] for name in OTHERS if name.isascii() and name != "tags"} == {
        name: value for name, value in OTHERS.items() if name.isascii() and name != "tags"
    }
    assert json.loads(str(first["tags"])) == OTHERS["tags"]
    assert json.loads(str(first["odd \\ud800"])) == "half \ud800"
    assert (second["share"], json.loads(str(second["tags"]))) == (1.0, "x")
    # Annotated again, the votes of before do not stand in the way and nothing else is lost.
    write_parquet(Rows(cast(list[PairRow], read)), voted(rows, 2.0), tmp_path / "again.parquet")
    [again, *_] = FileSource(tmp_path / "again.parquet")
    assert isinstance(again, PairRow)
    assert (again.votes, again.others.keys()) == ((2.0,), first.keys())


def test_a_column_that_was_read_under_another_name_is_not_kept_twice() -> None:
    row = parse_row(
        {"q": "2+2?", "good": "4", "bad": "5", "note": "n"},
        "a",
        columns={"prompt": "q", "chosen": "good", "rejected": "bad"},
    )
    assert isinstance(row, PairRow)
    assert row.others == {"note": "n"}
