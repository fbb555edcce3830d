from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_rm.data.sources import parquet
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring import files, stream
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.files import FileReport, score_file
from lightning_rm.scoring.load import LoadedModel
from lightning_rm.scoring.stream import RowStream
from tests.float64 import roughly, same
from tests.toy import toy_model

TOKENIZER = world_tokenizer()
LOADED = LoadedModel(toy_model(dtype="float64"), TOKENIZER)
ONE = {"prompt": "a red cat", "response": "a blue dog", "id": 7, "kept": {"deep": [1.5, None]}}
TALK = {"messages": [{"role": "user", "content": "a red cat"}, {"role": "assistant", "content": "a blue dog"}]}
GROUP = {
    "prompt": [{"role": "user", "content": "a red cat"}],
    "responses": ["a dog", "a blue dog", ""],
    "gold": [1, 2, 3],
}
PAIR = {"prompt": "a cat", "chosen": "a red dog", "rejected": [{"role": "assistant", "content": "a dog"}]}
TIE = {"context": "a cat", "response1": "a dog", "response2": "a red dog", "overall_preference": 0, "domain": "general"}
LONG = {"prompt": "a cat " * 200, "responses": ["a dog", "a dog"]}
BAD = {"prompt": "a cat"}
ROWS = [ONE, TALK, GROUP, PAIR, TIE, LONG, BAD]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(path: Path) -> list[dict[str, Any]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.decode().splitlines()]


def rewards_of(*conversations: tuple[str, str], model: AnyRewardModel = LOADED.model) -> list[float]:
    return score(model, TOKENIZER, [{"prompt": asked, "response": said} for asked, said in conversations]).tolist()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], FileReport]:
    folder = tmp_path_factory.mktemp("scored")
    source = write(folder / "in.jsonl", ROWS)
    source.write_text(source.read_text() + "\n{broken\n[1]\n")
    report = score_file(LOADED, source, folder / "out.jsonl")
    assert not (folder / "out.jsonl.parts").exists()
    return read(folder / "out.jsonl"), report


def test_every_kind_of_row_comes_back_whole_with_its_rewards(scored: tuple[list[dict[str, Any]], FileReport]) -> None:
    rows, _ = scored
    first, second, third = rewards_of(("a red cat", "a dog"), ("a red cat", "a blue dog"), ("a red cat", ""))
    expected = [first, second, third]
    assert rows[0] == ONE | {"reward": same(second)}
    assert rows[1] == TALK | {"reward": rows[0]["reward"]}
    assert rows[2] == GROUP | {"rewards": same(expected), "best": int(np.argmax(expected))}
    better, worse = rewards_of(("a cat", "a red dog"), ("a cat", "a dog"))
    assert rows[3] == PAIR | {"rewards": same([better, worse]), "best": int(better < worse)}
    # Whom the annotators prefer is not asked: the responses are in the row's order.
    assert rows[4] == TIE | {"rewards": same([worse, better]), "best": int(better > worse)}


def test_a_row_that_cannot_be_scored_costs_itself_and_is_named(
    scored: tuple[list[dict[str, Any]], FileReport],
) -> None:
    rows, report = scored
    assert rows[5] == LONG | {
        "rewards": [None, None],
        "best": None,
        "reason": "overlong: 807 tokens, and 256 are read",
    }
    assert rows[6] == BAD | {"reward": None, "reason": rows[6]["reason"]}
    assert rows[6]["reason"].startswith("missing field: found 'prompt'; a row to score has a prompt and responses")
    assert set(rows[7]) == set(rows[8]) == {"reward", "reason"}
    assert rows[7]["reason"].startswith("broken JSON")
    assert rows[8]["reason"].startswith("wrong type")
    assert report.refused == {"overlong": 1, "missing field": 1, "broken JSON": 1, "wrong type": 1}
    assert [example.split(": ")[0].rpartition(":")[2] for example in report.examples] == ["6", "7", "9", "10"]
    assert (report.num_rows, report.num_responses, report.num_scored) == (9, 11, 6)


def test_each_distinct_conversation_is_scored_once_over_the_whole_file(tmp_path: Path) -> None:
    """Rows 0 to 5 hold two conversations between them, in three shards; the third shard has nothing new."""
    seen: list[int] = []
    LOADED.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].reward_index.numel()))
    rows = [ONE, ONE, ONE, TALK, ONE | {"response": "a dog"}, GROUP | {"responses": ["a dog"]}]
    score_file(LOADED, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", shard_rows=2)
    assert sum(seen) == 2
    assert len({row.get("reward", row.get("rewards")) for row in read(tmp_path / "out.jsonl")[:4]}) == 1


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    """With room for two distinct conversations, a b c a: the second a is new again."""
    rows = [ONE | {"response": said} for said in ("a dog", "a cat", "a red cat", "a dog", "a red cat")]
    parse = files.parse_scorable
    rowstream = RowStream(write(tmp_path / "in.jsonl", rows), parse, (), TOKENIZER, None, 1, remembered=2)
    assert [shard.number for shard in rowstream.shards()] == [0, 1, 2, 3]
    assert rowstream.num_distinct == 4


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_the_output_has_the_form_of_the_input(suffix: str, tmp_path: Path) -> None:
    source, out = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    rows = [{"prompt": "a cat", "response": said, "number": number} for number, said in enumerate(("a dog", "a cat"))]
    table = pa.Table.from_pylist(
        rows, pa.schema([("prompt", pa.string()), ("response", pa.large_string()), ("number", pa.int8())])
    )
    if suffix == "parquet":
        pq.write_table(table.replace_schema_metadata({"mine": "kept"}), source)
    elif suffix == "json":
        source.write_text(json.dumps(rows))
    else:
        write(source, rows)
    score_file(LOADED, source, out)
    expected = rewards_of(("a cat", "a dog"), ("a cat", "a cat"))
    if suffix == "parquet":
        written = pq.read_table(out)
        assert written.schema.names == ["prompt", "response", "number", "reason", "reward"]
        assert written.schema.metadata[b"mine"] == b"kept"
        assert written.select(table.schema.names).cast(table.schema).equals(table)
        assert written.schema.field("response").type == pa.large_string()
        found = [row | {"reason": None} == row and row["reward"] for row in written.to_pylist()]
    else:
        given = json.loads(out.read_text()) if suffix == "json" else read(out)
        assert [{name: row[name] for name in rows[0]} for row in given] == rows
        found = [row["reward"] for row in given]
    assert found == same(np.float32(expected).tolist() if suffix == "parquet" else expected)  # a column of float32


def test_a_table_is_written_within_the_bounds_that_it_is_read_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows at a time, and none of 400 bytes: the row that is not read has its reason alone, as a line has."""
    monkeypatch.setattr(parquet, "MADE_BYTES", 300)
    monkeypatch.setattr(parquet, "MAX_LINE_BYTES", 400)
    rows = [{"prompt": "a cat", "response": "a dog", "note": "x" * (500 if n == 4 else 70)} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    made: list[int] = []
    plain = pq.ParquetWriter.write_table

    def remembered(writer: Any, table: pa.Table, *arguments: Any) -> None:
        made.append(table.num_rows)
        plain(writer, table, *arguments)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", remembered)
    score_file(LOADED, tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert made == [3, 1, 1, 3, 1]
    read = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row for n, row in enumerate(read) if n != 4] == [
        {**row, "reward": read[0]["reward"], "reason": None} for n, row in enumerate(rows) if n != 4
    ]
    assert read[0]["reward"] is not None
    assert [name for name, value in read[4].items() if value is not None] == ["reason"]
    assert read[4]["reason"].startswith("too large: the row has ")


def test_a_table_of_lists_and_single_responses_has_both_columns(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a cat", "response": "a dog", "responses": None},
        {"prompt": "a cat", "response": None, "responses": ["a dog", "a red dog"]},
        {"prompt": "a cat", "response": None, "responses": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    members = LoadedModel(MemberRewardModel.of(toy_model(dtype="float64"), Members(num_members=2)), TOKENIZER)
    score_file(members, tmp_path / "in.parquet", tmp_path / "out.parquet", each_member=True, prefix="my_")
    one, several, none = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert one["my_members"] == several["my_members"][:1]
    assert one["my_reward"] == roughly(np.mean(one["my_members"]))
    assert several["my_rewards"] == roughly(np.mean(several["my_members"], axis=1).tolist())
    assert (one["my_rewards"], several["my_reward"], none["my_best"]) == (None, None, None)
    assert none["my_reason"] == "bad value: field 'responses' is an empty list; leave the row out, or sample again"


def test_an_empty_response_is_scored_in_a_pair_too_and_said(tmp_path: Path) -> None:
    """Alone, in a list and in a pair: a response that says nothing has one reward, and the report counts it once."""
    rows = [
        {"prompt": "a cat", "response": ""},
        {"prompt": "a cat", "responses": ["", "a dog"]},
        {"prompt": "a cat", "chosen": "a dog", "rejected": ""},
        {"prompt": "a cat", "chosen": [{"role": "assistant", "content": ""}], "rejected": "a dog"},
        {"prompt": "", "response": "a dog"} | {"chat_template_kwargs": {"thinking": True}},
    ]
    report = score_file(LOADED, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    alone, *several, _ = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    nothing, said = several[0]["rewards"]
    assert alone["reward"] == nothing
    assert [row["rewards"] for row in several[1:]] == [[said, nothing], [nothing, said]]
    assert report.refused == {}
    assert report.remarks == {
        "with an empty response, scored as it is": 1,
        "with an argument that the template does not read (thinking)": 1,
    }


def test_a_file_that_changes_while_it_is_scored_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [ONE, TALK])
    with pytest.raises(ValueError, match=r"in\.jsonl has changed while it was scored"):
        score_file(LOADED, source, tmp_path / "out.jsonl", progress=lambda *_: write(source, [TALK]))
    assert not (tmp_path / "out.jsonl").exists()


def test_best_keeps_the_best_response(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [GROUP, PAIR, ONE, LONG])
    score_file(LOADED, tmp_path / "in.jsonl", tmp_path / "out.jsonl", best=True, prefix="")
    group, pair, one, long = read(tmp_path / "out.jsonl")
    expected = rewards_of(*(("a red cat", said) for said in GROUP["responses"]))
    best = int(np.argmax(expected))
    kept = {name: value for name, value in GROUP.items() if name != "responses"}
    assert group == kept | {
        "response": GROUP["responses"][best],
        "reward": same(expected[best]),
        "best": best,
    }
    assert pair == {
        "prompt": "a cat",
        "response": PAIR[("chosen", "rejected")[pair["best"]]],
        "reward": same(max(rewards_of(("a cat", "a red dog"), ("a cat", "a dog")))),
        "best": pair["best"],
    }
    assert one == ONE | {"reward": one["reward"]}
    assert long == LONG | {"reward": None, "best": None, "reason": long["reason"]}


@pytest.mark.parametrize(
    "given", [{"prompt": ["a red cat"], "responses": [GROUP["responses"]]}, {"messages": [TALK["messages"]]}]
)
def test_best_leaves_all_other_columns_of_a_table_as_they_are(given: dict[str, Any], tmp_path: Path) -> None:
    """Nanoseconds went through Python's time, which has none; of a table of one response nothing is moved."""
    table = pa.table(given | {"at": pa.array([1], pa.time64("ns"))})
    pq.write_table(table, tmp_path / "in.parquet")
    score_file(LOADED, tmp_path / "in.parquet", tmp_path / "out.parquet", best=True)
    found = pq.read_table(tmp_path / "out.parquet")
    others = [name for name in table.column_names if name != "responses"]
    assert found.select(others).equals(table.select(others))
    if "responses" in given:
        assert found["response"].to_pylist() == [GROUP["responses"][found["best"][0].as_py()]]


@pytest.mark.parametrize("best", [False, True])
def test_columns_of_views_come_back_as_such(best: bool, tmp_path: Path) -> None:
    """All was scored, and then Arrow could not cast a dictionary to a view of texts."""
    views = {"seen": pa.array(["u", None], pa.string_view()), "all": pa.array([["u"], []], pa.list_view(pa.string()))}
    table = pa.table({"prompt": ["a cat"] * 2, "responses": [["a dog", "red"]] * 2} | views)
    pq.write_table(table, tmp_path / "in.parquet")
    score_file(LOADED, tmp_path / "in.parquet", tmp_path / "out.parquet", best=best)
    found = pq.read_table(tmp_path / "out.parquet").select(["seen", "all"])
    assert found.schema == table.select(["seen", "all"]).schema
    assert found.to_pylist() == table.select(["seen", "all"]).to_pylist()


def test_turns_of_views_come_back_as_plain_texts(tmp_path: Path) -> None:
    """As polars writes turns; Arrow reads views of texts in structs in lists, and cannot write them."""

    def turns(text: Any) -> Any:
        return pa.large_list(pa.struct([("role", text), ("content", text)]))

    table = pa.table({"messages": pa.array([TALK["messages"]], turns(pa.string()))})
    told = pa.schema([("messages", turns(pa.string_view()))]).serialize().to_pybytes()
    with pq.ParquetWriter(tmp_path / "in.parquet", table.schema, store_schema=False) as writer:
        writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(told).decode()})
        writer.write_table(table)
    assert pq.read_schema(tmp_path / "in.parquet").field("messages").type == turns(pa.string_view())
    score_file(LOADED, tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(["messages"]).equals(table)
    assert found["reward"].to_pylist() == [float(np.float32(rewards_of(("a red cat", "a blue dog"))[0]))]


def test_a_prompt_that_begins_the_answer_is_continued_where_that_is_asked_for(tmp_path: Path) -> None:
    """The error named `prefill=continue`, and neither `score` had it."""
    asked = [{"role": "user", "content": "a red cat"}, {"role": "assistant", "content": "a blue "}]
    rows: list[dict[str, Any]] = [
        {"prompt": asked, "response": "dog"},
        {"prompt": asked, "responses": ["dog", "cat"]},
        {"prompt": asked, "chosen": "cat", "rejected": "dog"},
    ]
    source = write(tmp_path / "in.jsonl", [*rows, ONE])
    report = score_file(LOADED, source, tmp_path / "error.jsonl")
    assert report.refused == {"prefill": 3}
    score_file(LOADED, source, tmp_path / "out.jsonl", prefill="continue")
    one, group, pair, _ = read(tmp_path / "out.jsonl")
    dog, cat = rewards_of(("a red cat", "a blue dog"), ("a red cat", "a blue cat"))
    assert [one["reward"], *group["rewards"], *pair["rewards"]] == same([dog, dog, cat, cat, dog])
    assert score(LOADED.model, TOKENIZER, rows[:1], prefill="continue").tolist() == [same(dog)]
    with pytest.raises(ValueError, match="prefill='join'; it must be one of error, continue"):
        score_file(LOADED, source, tmp_path / "other.jsonl", prefill="join")  # pyright: ignore[reportArgumentType]


def test_of_two_fields_that_may_be_the_response_none_is_taken_unasked(tmp_path: Path) -> None:
    """A reference answer was scored in the place of the model's output."""
    both = {"question": "a red cat", "answer": "a dog", "output": "a blue dog"}
    source = write(tmp_path / "in.jsonl", [both, both | {"output": "a dog"}, ONE | {"answer": "a dog"}])
    report = score_file(LOADED, source, tmp_path / "out.jsonl")
    dog, blue = rewards_of(("a red cat", "a dog"), ("a red cat", "a blue dog"))
    assert [row["reward"] for row in read(tmp_path / "out.jsonl")] == [None, same(dog), same(blue)]
    assert "columns={output: null}" in report.examples[0]


def test_an_ensembles_reward_is_its_aggregate_beside_its_members(tmp_path: Path) -> None:
    ensemble = RewardEnsemble([toy_model(seed, "float64") for seed in range(3)], how="worst")
    score_file(
        LoadedModel(ensemble, TOKENIZER), write(tmp_path / "in.jsonl", [ONE]), tmp_path / "out.jsonl", each_member=True
    )
    (row,) = read(tmp_path / "out.jsonl")
    each = [rewards_of(("a red cat", "a blue dog"), model=model)[0] for model in ensemble.members]
    assert row["members"] == same(each)
    assert row["reward"] == min(row["members"])


def stopping(after: int) -> Callable[[int, int | None], None]:
    """Progress that interrupts when it has been told so often."""
    told = 0

    def tell(done: int, total: int | None) -> None:
        nonlocal told
        told += 1
        if told > after:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("suffix", ["jsonl.gz", "parquet"])
def test_killed_and_started_again_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    said = ["a dog", "a cat", "a red dog", "a blue cat", "a dog a cat", "", "a red cat a dog", "a blue dog"]
    rows = [
        {"prompt": f"a cat {' a dog' * (place % 3)}", "response": text, "n": place}
        for place, text in enumerate(said * 3)
    ]
    rows[5]["prompt"] = "a cat " * 200
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        write(source, rows)
    whole, again = tmp_path / "whole" / f"out.{suffix}", tmp_path / "again" / f"out.{suffix}"
    options: dict[str, Any] = {"shard_rows": 4, "batch_tokens": 30}
    report = score_file(LOADED, source, whole, **options)
    for after in (0, 3, 7):
        with pytest.raises(KeyboardInterrupt):
            score_file(LOADED, source, again, **options, progress=stopping(after))
        assert not again.exists()
    parts = sorted(again.with_name(f"{again.name}.parts").rglob("*.npz"))
    assert 0 < len(parts) < 6
    before = [part.stat().st_mtime_ns for part in parts]
    parts[0].write_bytes(parts[0].read_bytes()[:-1])  # a damaged part is scored again
    told: list[tuple[int, int | None]] = []
    resumed = score_file(LOADED, source, again, **options, progress=lambda *now: told.append(now))
    assert told[-1] == (24, 24)
    assert len(before) == len(parts)
    assert again.read_bytes() == whole.read_bytes()
    assert resumed.refused == report.refused == {"overlong": 1}
    with pytest.raises(ValueError, match="is there already; name another file, or set overwrite=true"):
        score_file(LOADED, source, again)


def test_a_reward_that_is_not_finite_is_an_error_with_its_row(tmp_path: Path) -> None:
    broken = toy_model()
    with torch.no_grad():
        broken.backbone.get_input_embeddings().weight[TOKENIZER.encode("blue", add_special_tokens=False)[0]] = float(
            "nan"
        )
    rows = [PAIR, ONE | {"response": "a dog"}, ONE, GROUP]
    with pytest.raises(ValueError, match=r"in\.jsonl:3 has a reward that is not finite"):
        score_file(LoadedModel(broken, TOKENIZER), write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_what_would_be_lost_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [ONE, ONE | {"reward": 1.0}])
    with pytest.raises(ValueError, match=r"in\.jsonl:2 has a field 'reward' already, .* put something in front"):
        score_file(LOADED, source, tmp_path / "out.jsonl")
    assert score_file(LOADED, source, tmp_path / "out.jsonl", prefix="second_").num_rows == 2
    for out, message in (
        (source, "is the file that is read"),
        (tmp_path / "out.parquet", r"a name that ends in \.jsonl"),
    ):
        with pytest.raises(ValueError, match=message):
            score_file(LOADED, source, out)
    (tmp_path / "new.jsonl.parts").mkdir()
    (tmp_path / "new.jsonl.parts" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"new\.jsonl\.parts is there already, and what it holds is not of"):
        score_file(LOADED, source, tmp_path / "new.jsonl", prefix="x")
    with pytest.raises(ValueError, match=r"no row of .* can be scored: .*missing field"):
        score_file(LOADED, write(tmp_path / "bad.jsonl", [BAD]), tmp_path / "none.jsonl")
    assert not list(tmp_path.glob("none.jsonl*"))


def test_columns_name_fields_and_formats(tmp_path: Path) -> None:
    rows = [{"ask": {"text": "a cat"}, "said": "a dog"}, {"ask": {"text": "a cat"}, "said": "a red dog"}]
    columns = {"prompt": "ask.text", "response": "said"}
    score_file(LOADED, write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", columns=columns)
    expected = rewards_of(("a cat", "a dog"), ("a cat", "a red dog"))
    assert [row["reward"] for row in read(tmp_path / "out.jsonl")] == same(expected)
    with pytest.raises(ValueError, match="columns names 'respnse', which no format reads"):
        score_file(LOADED, tmp_path / "in.jsonl", tmp_path / "other.jsonl", columns={"respnse": "said"})


def test_long_rows_end_a_shard_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SHARD_BYTES", 200)
    rowstream = RowStream(
        write(tmp_path / "in.jsonl", [ONE | {"response": f"a dog {'a' * place}"} for place in range(6)]),
        files.parse_scorable,
        (),
        TOKENIZER,
        None,
    )
    sizes = [shard.size for shard in rowstream.shards()]
    assert sizes == [3, 3]
