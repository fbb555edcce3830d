"""Groups of responses from a file to a batch: what is read, what is left out and counted, what a batch says."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.batch import GroupBatch, Sample
from lightning_rm.data.batches.group_batches import GroupBatches
from lightning_rm.data.batches.layouts import packed, padded
from lightning_rm.data.formats.groups import parse_group
from lightning_rm.data.rows import BadRow, GroupRow
from lightning_rm.data.sources.groups import GroupFile, response_files
from lightning_rm.data.store.groups import GroupDataset
from lightning_rm.data.tokenize.groups import prepare_groups
from lightning_rm.data.tokenize.pairs import encode_conversation, prepare_pairs
from lightning_rm.data.tokenize.policy import TokenizePolicy
from tests.data.words import PAD, Rows, group, pair, turns, word_tokenizer

NAN = float("nan")
USER = {"role": "user", "content": "2+2?"}
FOUR, FIVE = ({"role": "assistant", "content": answer} for answer in "45")


def good(raw: dict[str, Any], **options: Any) -> GroupRow:
    row = parse_group(raw, "here", **options)
    assert isinstance(row, GroupRow), row
    return row


# Rows from files


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "2+2?", "responses": ["4", "5"]},
        {"prompt": [USER], "responses": [[FOUR], [FIVE]]},
        {"prompt": [USER], "responses": [FOUR, "5"]},
        {"prompt": USER, "responses": [[USER, FOUR], [USER, FIVE]]},
        {"prompt": "\n\nHuman: 2+2?\n\nAssistant:", "responses": ["4", "\n\nHuman: 2+2?\n\nAssistant: 5"]},
    ],
)
def test_every_shape_reads_to_the_same_group(raw: dict[str, Any]) -> None:
    row = good(raw)
    assert row.prompt == (USER,)
    assert row.responses == ((FOUR,), (FIVE,))
    assert (row.gold, row.votes, len(row.id), len(row.prompt_id)) == ((), (), 16, 12)


def test_all_fields_are_read() -> None:
    raw = {"prompt": "q", "responses": ["a", "b"], "id": 7, "prompt_id": "p", "gold": [1, 2.5], "votes": [[1], [0.5]]}
    row = good(raw | {"chat_template_kwargs": {"enable_thinking": False}, "unknown": 1})
    assert (row.id, row.prompt_id, row.gold, row.votes) == ("7", "p", (1.0, 2.5), ((1.0,), (0.5,)))
    assert row.chat_template_kwargs == {"enable_thinking": False}


def test_columns_rename_and_hide() -> None:
    raw = {"info": {"post": "q"}, "samples": ["a", "b"], "gold": "words"}
    row = good(raw, columns={"prompt": "info.post", "responses": "samples", "gold": None})
    assert (row.prompt[0]["content"], len(row.responses), row.gold) == ("q", 2, ())


def test_a_response_that_says_nothing_is_read() -> None:
    """A policy that ends at once has said so; its group is not bad for that."""
    assert [said[0]["content"] for said in good({"prompt": "q", "responses": ["", "a", " "]}).responses] == [
        "",
        "a",
        "",
    ]


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        ({"responses": ["a", "b"]}, "missing field", "field 'prompt' is missing; found 'responses'"),
        ({"prompt": "q"}, "missing field", "field 'responses' is missing"),
        ({"prompt": "q", "responses": "a"}, "wrong type", "must be a list of responses, found 'a'"),
        ({"prompt": "q", "responses": []}, "bad value", "an empty list"),
        ({"prompt": "q", "responses": ["a", 3]}, "wrong type", "response 1 must be text or a list of turns, found 3"),
        ({"prompt": "q", "responses": [[FOUR], [USER]]}, "prompt disagrees", "response 1 begins with a user turn"),
        ({"prompt": "q", "responses": ["a", "b"], "gold": [1]}, "bad value", "'gold' has 1 items for 2 responses"),
        ({"prompt": "q", "responses": ["a", "b"], "votes": [[1]]}, "bad value", "'votes' has 1 items for 2 responses"),
        ({"prompt": "q", "responses": ["a", "b"], "votes": [[1], [1, 2]]}, "bad value", r"\[1, 2\] votes a response"),
        ({"prompt": "q", "responses": ["a", "b"], "votes": [1, 2]}, "wrong type", "response 0 must be a list"),
        ({"prompt": "q", "responses": ["a", "b"], "gold": [1, NAN]}, "bad value", "item 1 must be finite"),
    ],
)
def test_a_bad_row_says_what_is_wrong(raw: dict[str, Any], reason: str, detail: str) -> None:
    row = parse_group(raw, "r.jsonl:3")
    assert isinstance(row, BadRow)
    assert (row.origin, row.reason) == ("r.jsonl:3", reason)
    with pytest.raises(ValueError, match=detail):
        raise ValueError(row.detail)


def test_files_of_every_kind_hold_the_same_rows(tmp_path: Path) -> None:
    raw = [{"prompt": "q", "responses": ["a", "b"], "gold": [1.0, 2.0]}, {"prompt": "p", "responses": ["c", "d"]}]
    lines = "".join(json.dumps(row) + "\n" for row in raw)
    (tmp_path / "r.jsonl").write_text(lines)
    (tmp_path / "r.json").write_text(json.dumps(raw))
    with gzip.open(tmp_path / "r.jsonl.gz", "wt") as file:
        file.write(lines)
    pq.write_table(pa.Table.from_pylist(raw), tmp_path / "r.parquet")
    read = [list(GroupFile(tmp_path / f"r.{kind}")) for kind in ("jsonl", "json", "jsonl.gz", "parquet")]
    assert read[0] == read[1] == read[2] == read[3] == [good(row) for row in raw]


def test_a_broken_line_costs_one_row_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"prompt": "q", "responses": ["a", "b"]}\n{"prompt": "q", "respo\n\n{"prompt": "p"}\n')
    first, second, third = GroupFile(path)
    assert isinstance(first, GroupRow)
    assert [(row.origin, row.reason) for row in (second, third) if isinstance(row, BadRow)] == [
        (f"{path}:2", "broken JSON"),
        (f"{path}:4", "missing field"),
    ]


def test_the_fingerprint_is_of_bytes_and_columns(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for file in (path, copy):
        file.write_text('{"prompt": "q", "responses": ["a", "b"]}\n')
    before = GroupFile(path).fingerprint()
    assert before == GroupFile(copy).fingerprint()
    assert before != GroupFile(path, {"gold": None}).fingerprint()
    path.write_text('{"prompt": "q", "responses": ["a", "c"]}\n')
    assert before != GroupFile(path).fingerprint()


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="columns names 'chosen', which is not a field of a group"):
        GroupFile(path, {"chosen": "x"})
    with pytest.raises(ValueError, match="there is no file"):
        GroupFile(tmp_path / "none.jsonl")


def test_named_files_are_named_sources(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("")
    own = {"path": path, "columns": {"prompt": "question"}}
    named = response_files({"one": path, "two": str(path), "three": own}, {"id": "key"}, "continue")
    assert isinstance(named, dict)
    assert list(named) == ["one", "two", "three"]
    assert [source.columns for source in named.values()] == [{"id": "key"}, {"id": "key"}, {"prompt": "question"}]
    assert {source.prefill for source in named.values()} == {"continue"}
    assert isinstance(response_files(path), GroupFile)
    assert response_files(None) is None


# Tokenised groups


def prepared(tmp_path: Path, *rows: GroupRow | BadRow, max_tokens: int = 64, **policy: Any) -> GroupDataset:
    return prepare_groups(Rows(*rows), word_tokenizer(), TokenizePolicy(max_tokens, **policy), tmp_path, "said")


def words(groups: GroupDataset, i: int) -> tuple[str, list[str]]:
    """The prompt and the responses of a group, from its token ids."""
    sample = groups.sample(i)

    def decoded(ids: list[int]) -> str:
        return word_tokenizer().decode(ids, skip_special_tokens=True)

    prompt = decoded(list(sample.sequences[0][: sample.prompt_length]))
    return prompt, [decoded(list(sequence[sample.prompt_length :])) for sequence in sample.sequences]


def test_a_sample_holds_every_response(tmp_path: Path) -> None:
    """`4 11 5` is the prompt; `2` ends each response."""
    groups = prepared(tmp_path, group("w1", "w2", "w2 w3", "w4", gold=(3.0, 1.0, 2.0), id="g"))
    assert groups.sample(0) == Sample(([4, 11, 5, 12, 2], [4, 11, 5, 12, 13, 2], [4, 11, 5, 14, 2]), 3)
    assert groups.num_responses.tolist() == [3]
    assert (groups.gold(0), groups.votes(0)) == ((3.0, 1.0, 2.0), ())
    assert groups.source_row.tolist() == [0]


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple), min_size=2, max_size=6, unique=True))
def test_responses_have_the_ids_that_pairs_give_them(tmp_path_factory: Any, said: list[tuple[int, ...]]) -> None:
    """The naive way: every response in a pair with the first."""
    folder = tmp_path_factory.mktemp("cache")
    responses = [" ".join(f"w{number}" for number in numbers) for numbers in said]
    groups = prepared(folder, group("w1 w2", *responses))
    rows = Rows(*(pair("w1 w2", responses[0], other, id=other) for other in responses[1:]))
    pairs = prepare_pairs(rows, word_tokenizer(), TokenizePolicy(64), folder)
    naive = [pairs.sample(0).sequences[0], *(pairs.sample(row).sequences[1] for row in range(len(pairs)))]
    assert list(groups.sample(0).sequences) == naive
    assert naive[0] == encode_conversation(
        word_tokenizer(), group("w1 w2", responses[0]).prompt + turns(responses[0], first="assistant")
    )


def test_empty_responses_are_left_out_and_repeated_ones_kept_and_counted(tmp_path: Path) -> None:
    """Of `a`: two repeated in words, one in tokens (a space), one empty, whose gold and votes go with it."""
    groups = prepared(
        tmp_path,
        group(
            "w1",
            "w2",
            "w3",
            "w2",
            "w2",
            "w3 ",
            "",
            "w4",
            id="a",
            gold=(0, 1, 0, 0, 1, 5, 2),
            votes=((0,), (1,)) * 3 + ((2,),),
        ),
        group("w1", "w2", "w3", id="b"),
        group("w1", "w2", "w2", "", id="c"),
        group("w1", "w2", id="d"),
    )
    report = groups.report
    assert groups.source_row.tolist() == [0, 1]
    assert words(groups, 0) == ("w1", ["w2", "w3", "w2", "w2", "w3", "w4"])
    assert groups.gold(0) == (0, 1, 0, 0, 1, 2)
    assert groups.votes(0) == ((0,), (1,), (0,), (1,), (0,), (2,))
    assert groups.num_responses.tolist() == [6, 2]
    assert groups.source_row.tolist() == [0, 1]
    assert (report.name, report.read, report.kept) == ("said", 4, 2)
    assert report.reasons == {"fewer than two different responses": 2}
    assert report.changes == {"empty responses left out": 1}
    assert report.examples["fewer than two different responses"] == [
        "group c: 1 of 3: 1 empty",
        "group d: 1 of 1",
    ]
    assert report.notes == ["said: 8 responses kept, 3 of them repeated; left out: 2 empty"]


LONG = "w3 w3 w3 w3 w3 w3 w3 w3"


def test_an_overlong_response_is_dropped_and_its_group_is_kept(tmp_path: Path) -> None:
    """`4 11 5 . 2` and one word is 5 tokens; `LONG` has 12."""
    groups = prepared(tmp_path, group("w1", LONG, "w2", "w4 w5", id="a"), group("w1", LONG, "w2", id="b"), max_tokens=6)
    assert words(groups, 0) == ("w1", ["w2", "w4 w5"])
    assert groups.report.reasons == {"fewer than two different responses": 1}
    assert groups.report.examples["fewer than two different responses"] == ["group b: 1 of 2: 1 overlong"]
    assert groups.report.changes == {"overlong responses left out": 1}


def test_a_prompt_is_cut_for_all_of_its_responses(tmp_path: Path) -> None:
    """The first two turns go: `4 13 5` is left of the prompt, for the short response too."""
    groups = prepared(
        tmp_path, group(turns("w1", "w2", "w3"), "w4", "w5 w6 w7"), max_tokens=8, overlong="truncate_prompt"
    )
    assert groups.sample(0) == Sample(([4, 13, 5, 14, 2], [4, 13, 5, 15, 16, 17, 2]), 3)
    assert groups.report.changes == {"prompt cut": 1}


def test_a_response_that_no_cut_makes_fit_does_not_cost_the_others_their_prompt(tmp_path: Path) -> None:
    groups = prepared(
        tmp_path, group(turns("w1", "w2", "w3"), "w4", LONG, "w5"), max_tokens=9, overlong="truncate_prompt"
    )
    assert words(groups, 0) == ("w1 w2 w3", ["w4", "w5"])
    assert groups.report.changes == {"overlong responses left out": 1}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_response_that_cannot_be_cut_does_not_cost_the_others_their_beginnings(tmp_path: Path, place: int) -> None:
    """A short last turn after a long one, which is not cut: it alone is left out, wherever it stands."""
    plain = group("w1", "w2 w3 w4", "w5")
    uncut = (*turns("w6 w7 w8 w9", "w10", first="assistant"), *turns("w11", first="assistant"))
    responses = (*plain.responses[:place], uncut, *plain.responses[place:])
    groups = prepared(tmp_path, replace(plain, responses=responses), max_tokens=6, overlong="truncate_response")
    assert words(groups, 0) == ("w1", ["w2 w3", "w5"])
    assert groups.report.changes == {"response cut": 1, "overlong responses left out": 1}


def test_cut_responses_that_become_the_same_are_repeats(tmp_path: Path) -> None:
    rows = group("w1", "w2 w3 w4", "w2 w3 w5", "w6"), group("w1", "w2 w3 w4", "w2 w3 w5")
    groups = prepared(tmp_path, *rows, max_tokens=6, overlong="truncate_response")
    assert [words(groups, row) for row in range(len(groups))] == [("w1", ["w2 w3", "w2 w3", "w6"])]
    assert groups.report.changes == {"response cut": 1}
    assert groups.report.reasons == {"fewer than two different responses": 1}


def test_errors_name_the_groups_and_the_ways_out(tmp_path: Path) -> None:
    rows = (group("w1", LONG, "w2", "w3", id="long"), group("w1", "w2", "w2", id="same"), group("w1", "w2", "w3"))
    with pytest.raises(ValueError, match=r"group long: overlong: 1 of its responses(?s:.)*overlong=drop"):
        prepared(tmp_path, *rows, max_tokens=6, overlong="error")
    with pytest.raises(
        ValueError, match=r"group same: fewer than two different responses: 1 of 2(?s:.)*identical=drop"
    ):
        prepared(tmp_path, *rows, max_tokens=6, identical="error")
    bad = BadRow("r.jsonl:2", "broken JSON", "no bracket")
    with pytest.raises(ValueError, match=r"said: 1 of 2 rows cannot be used\n  r.jsonl:2: broken JSON: no bracket"):
        prepared(tmp_path, bad, rows[2])
    assert prepared(tmp_path, bad, rows[2], on_bad_row="drop").report.reasons == {"broken JSON": 1}
    with pytest.raises(ValueError, match="no group is left to use\nsaid: 1 rows read"):
        prepared(tmp_path, rows[1])


def test_a_template_that_refuses_costs_the_group(tmp_path: Path) -> None:
    template = "{{ raise_exception('no such turn') if messages[0]['content'] == 'w9' else messages[-1]['content'] }}"
    rows = Rows(group("w9", "w2", "w3", id="a"), group("w1", "w2", "w3"))
    groups = prepare_groups(rows, word_tokenizer(template), TokenizePolicy(on_bad_row="drop"), tmp_path)
    assert groups.report.reasons == {"chat template refuses": 1}
    assert len(groups) == 1


def test_the_source_is_read_once_and_pickled_groups_are_their_path(tmp_path: Path) -> None:
    rows = Rows(*(group("w1", f"w{i}", "w9 w9", id=str(i)) for i in range(5)))
    first = prepare_groups(rows, word_tokenizer(), TokenizePolicy(), tmp_path, "said")
    reads = rows.num_reads
    second = prepare_groups(rows, word_tokenizer(), TokenizePolicy(), tmp_path, "again")
    assert rows.num_reads == reads == 1
    pickled = pickle.dumps(second)
    again = pickle.loads(pickled)
    assert len(pickled) < 1000
    assert [again.sample(i) for i in range(5)] == [first.sample(i) for i in range(5)]
    assert (again.name, again.report.name) == ("again", "again")


def test_pairs_are_no_groups(tmp_path: Path) -> None:
    pairs = prepare_pairs(Rows(pair("w1", "w2", "w3")), word_tokenizer(), TokenizePolicy(), tmp_path)
    with pytest.raises(ValueError, match="not those of tokenised groups"):
        GroupDataset(pairs.path)


def test_many_groups_cross_chunks(tmp_path: Path) -> None:
    """2,500 groups are three chunks; every row is where it stood."""
    groups = prepared(tmp_path, *(group("w1", f"w{i % 7}", f"w{i % 11 + 8}", id=str(i)) for i in range(2500)))
    assert len(groups) == 2500
    for i in (0, 999, 1000, 2499):
        assert words(groups, i) == ("w1", [f"w{i % 7}", f"w{i % 11 + 8}"])
        assert groups.source_row[i] == i


# Batches


THREE = (
    group("w1", "w2", "w3", "w4", id="a", gold=(3, 1, 2), votes=((3.0, 3.0), (1.0, 2.0), (2.0, 2.0))),
    group("w1", "w5", "w6 w7", id="b"),
    group("w1", "w2", "w8", "w9", "w10", id="c", gold=(0, 1, 2, 3)),
)


def batch(tmp_path: Path, *rows: int, valid: Sequence[bool] | None = None, **options: Any) -> GroupBatch:
    read: dict[str, Any] = {"layout": padded, "read_at": "last", "pad_id": PAD}
    return GroupBatches(prepared(tmp_path, *THREE), **(read | options)).of(rows, valid)


def test_smaller_groups_are_filled_up_with_their_first_response(tmp_path: Path) -> None:
    read = batch(tmp_path, 2, 1)
    assert read.present.T.tolist() == [[True] * 4, [True, True, False, False]]
    index = read.tokens.reward_index
    assert (index[0, 1] == index[2:, 1]).all()
    assert len(set(index[:, 0].tolist())) == 4
    assert read.tokens.input_ids.shape[0] == 6  # the fillers are computed once
    assert (read.row.tolist(), read.valid.tolist(), read.data_set) == ([2, 1], [True, True], "said")
    np.testing.assert_array_equal(read.gold.T, [[0, 1, 2, 3], [NAN] * 4])
    assert read.gold.dtype == torch.float32
    assert read.num_groups == 2


def naive_agreed(votes: tuple[tuple[float, ...], ...], k: int) -> list[list[bool]]:
    """Response by response, voter by voter."""
    filled = [votes[i] if i < len(votes) else votes[0] for i in range(k)]
    table = [[False] * k for _ in range(k)]
    for i in range(k):
        for j in range(k):
            above = sum(first > second for first, second in zip(filled[i], filled[j], strict=True))
            below = sum(first < second for first, second in zip(filled[i], filled[j], strict=True))
            table[i][j] = len(filled[i]) in (above, below)
    return table


def test_agreed_is_what_all_voters_rank_alike(tmp_path: Path) -> None:
    """In `a` the voters tie on 1 and 2; `b` has no votes."""
    read = batch(tmp_path, 0, 1)
    assert read.agreed[..., 0].tolist() == naive_agreed(THREE[0].votes, 3)
    assert read.agreed[..., 0].tolist() == [[False, True, True], [True, False, False], [True, False, False]]
    assert read.agreed[..., 1].all()
    assert batch(tmp_path, 0, 2).agreed[..., 0].tolist() == naive_agreed(THREE[0].votes, 4)


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(1, 3), st.randoms(use_true_random=False))
def test_agreed_of_any_votes(tmp_path_factory: Any, k: int, num_voters: int, draw: Any) -> None:
    votes = tuple(tuple(float(draw.randrange(3)) for _ in range(num_voters)) for _ in range(k))
    row = group("w1", *(f"w{i + 2}" for i in range(k)), votes=votes)
    groups = prepared(tmp_path_factory.mktemp("cache"), row)
    assert GroupBatches(groups, padded, "last", PAD).of([0]).agreed[..., 0].tolist() == naive_agreed(votes, k)


def test_a_filler_and_another_layout(tmp_path: Path) -> None:
    read = batch(tmp_path, 0, layout=packed, read_at="first", valid=(False,))
    assert read.valid.tolist() == [False]
    assert read.tokens.input_ids.shape[0] == 1
    assert (read.tokens.position_ids.flatten()[read.tokens.reward_index] == 0).all()
    assert read.present.all()
