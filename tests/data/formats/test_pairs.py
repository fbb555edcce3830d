"""Every row format to its pair, every bad value to its reason."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from decimal import Decimal
from functools import reduce
from typing import Any
from uuid import UUID

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.curation.clean import CLEAN_SCHEMA
from lightning_rm.data.formats.columns import PLAIN_FIELDS, WRITTEN_FIELDS
from lightning_rm.data.formats.pairs import parse_row
from lightning_rm.data.formats.published import FORMATS
from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, PairRow
from lightning_rm.losses import ranking_loss
from lightning_rm.rlhf.weighed_file import COLUMNS
from tests import reference
from tests.float64 import same

USER = {"role": "user", "content": "2+2?"}
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}


def good(raw: dict[str, Any], **options: Any) -> PairRow:
    row = parse_row(raw, "here", **options)
    assert isinstance(row, PairRow), row
    return row


def bad(raw: dict[str, Any], **options: Any) -> BadRow:
    row = parse_row(raw, "here", **options)
    assert isinstance(row, BadRow), row
    assert row.origin == "here"
    return row


def turns(row: PairRow) -> tuple[list[str], list[str], list[str]]:
    """Prompt, chosen and rejected as `role: content`."""
    sides = (row.prompt, row.chosen, row.rejected)
    prompt, chosen, rejected = ([f"{turn['role']}: {turn['content']}" for turn in side] for side in sides)
    return prompt, chosen, rejected


SUM = (["user: 2+2?"], ["assistant: 4"], ["assistant: 5"])

SHAPES: dict[str, dict[str, Any]] = {
    "explicit prompt, texts": {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
    "explicit prompt, messages": {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
    "explicit prompt, single messages": {"prompt": USER, "chosen": FOUR, "rejected": FIVE},
    "prompt messages, response texts": {"prompt": [USER], "chosen": "4", "rejected": "5"},
    "implicit prompt, messages": {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
    "implicit prompt, texts": {"chosen": "2+2?\n\n4", "rejected": "2+2?\n\n5"},
    "empty prompt before messages": {"prompt": [], "chosen": [USER, FOUR], "rejected": [USER, FIVE]},
    "UltraFeedback binarized": {
        "prompt": "2+2?",
        "prompt_id": "uf",
        "chosen": [USER, FOUR],
        "rejected": [USER, FIVE],
        "messages": [USER, FOUR],
        "score_chosen": 9.0,
        "score_rejected": 1.0,
    },
    "Skywork": {"chosen": [USER, FOUR], "rejected": [USER, FIVE], "source": "magpie"},
    "HH-RLHF text": {
        "chosen": "\n\nHuman: 2+2?\n\nAssistant: 4",
        "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5",
    },
    "HH-RLHF text as a prompt": {
        "prompt": "\n\nHuman: 2+2?\n\nAssistant:",
        "chosen": " 4".strip(),
        "rejected": "5",
    },
    "HH-RLHF text, the prompt in front of the responses": {
        "prompt": "\n\nHuman: 2+2?\n\nAssistant:",
        "chosen": "\n\nHuman: 2+2?\n\nAssistant: 4",
        "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5",
    },
    "lists of texts": {"chosen": ["2+2?", "4"], "rejected": ["2+2?", "5"]},
    "lists of texts behind a prompt": {"prompt": "2+2?", "chosen": ["4"], "rejected": ["5"]},
    "lists of texts that repeat the prompt": {"prompt": "2+2?", "chosen": ["2+2?", "4"], "rejected": ["2+2?", "5"]},
    "ShareGPT": {
        "chosen": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}],
        "rejected": [{"from": "Human", "value": "2+2?"}, {"from": "Assistant", "value": "5"}],
    },
    "PKU-SafeRLHF": {"prompt": "2+2?", "response_0": "5", "response_1": "4", "better_response_id": 1},
    "SHP": {"history": "2+2?", "human_ref_A": "4", "human_ref_B": "5", "labels": 1, "domain": "askmath_train"},
    "HelpSteer2": {"prompt": "2+2?", "response_1": "4", "response_2": "5", "preference_strength": -1},
    "HelpSteer3": {"context": [USER], "response1": "5", "response2": "4", "overall_preference": 3},
    "strength-cleaned": {"chosen": ["2+2?", "4"], "rejected": ["2+2?", "5"], "mean preference difference": 0.5},
    "alpaca": {"instruction": "2+2?", "input": "", "chosen": "4", "rejected": "5"},
    "alpaca, the instruction in its input": {"instruction": "", "input": "2+2?", "chosen": "4", "rejected": "5"},
    "sharegpt ranking": {
        "conversations": [{"from": "human", "value": "2+2?"}],
        "chosen": {"from": "gpt", "value": "4"},
        "rejected": {"from": "gpt", "value": "5"},
    },
    "sharegpt ranking, texts": {"conversations": [USER], "chosen": "4", "rejected": "5"},
    "orca": {"system": "", "question": "2+2?", "chosen": "4", "rejected": "5"},
    "orca, its other spelling": {"system": None, "input": "2+2?", "chosen": "4", "rejected": "5"},
    "orca, messages": {"question": "2+2?", "chosen": [FOUR], "rejected": [FIVE]},
    "orca, the prompt in both responses": {"question": "2+2?", "chosen": [USER, FOUR], "rejected": [USER, FIVE]},
    "NeMo RL": {
        "context": [USER],
        "completions": [{"rank": 1, "completion": [FIVE]}, {"rank": 0, "completion": [FOUR]}],
    },
    "ms-swift": {"messages": [USER, FOUR], "rejected_response": "5"},
    "ms-swift, messages": {"messages": [USER, FOUR], "rejected_response": [FIVE]},
    "OpenAI": {
        "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [FOUR],
        "non_preferred_output": [FIVE],
    },
}

PREFERENCES = ("preference_strength", "overall_preference")

TOLD = {
    "PKU-SafeRLHF": "safe_rlhf",
    "SHP": "shp",
    "HelpSteer2": "helpsteer",
    "HelpSteer3": "helpsteer",
    "strength-cleaned": "strength_cleaned",
    "HH-RLHF text": "hh_text",
    "alpaca": "alpaca",
    "alpaca, the instruction in its input": "alpaca",
    "sharegpt ranking": "sharegpt",
    "sharegpt ranking, texts": "sharegpt",
    "orca": "orca",
    "orca, its other spelling": "orca",
    "orca, messages": "orca",
    "NeMo RL": "nemo_rl",
    "ms-swift": "ms_swift",
    "ms-swift, messages": "ms_swift",
    "OpenAI": "openai",
}
"""The format that each shape is told to be; `preference` for all others."""


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reads_to_the_same_pair(shape: str) -> None:
    row = good(SHAPES[shape])
    assert turns(row) == SUM
    assert row.label == row.weight == 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_told_by_its_fields(shape: str) -> None:
    told = [name for name, row_format in FORMATS.items() if row_format.matches(SHAPES[shape])]
    assert told[0] == TOLD.get(shape, "preference")
    assert good(SHAPES[shape], format=told[0]) == good(SHAPES[shape])


def test_a_shape_that_says_more_keeps_it() -> None:
    assert good(SHAPES["UltraFeedback binarized"]).prompt_id == "uf"
    assert good(SHAPES["SHP"]).subset == "askmath"
    assert good(SHAPES["HelpSteer3"]).strength_mean == 3
    assert good(SHAPES["HelpSteer2"]).strength_mean == 1
    assert good(SHAPES["strength-cleaned"]).strength_mean == 0.5


@pytest.mark.parametrize(
    ("raw", "flipped"),
    [
        (SHAPES["PKU-SafeRLHF"], {"better_response_id": 0}),
        (SHAPES["SHP"], {"labels": 0}),
        (SHAPES["HelpSteer2"], {"preference_strength": 1}),
        (SHAPES["HelpSteer3"], {"overall_preference": -3}),
    ],
)
def test_the_preference_index_decides_who_is_chosen(raw: dict[str, Any], flipped: dict[str, Any]) -> None:
    before, after = good(raw), good(raw | flipped)
    assert (after.chosen, after.rejected) == (before.rejected, before.chosen)
    assert after.prompt_id == before.prompt_id


def test_summaries_of_posts_and_news() -> None:
    raw = {
        "info": {"post": "Long story", "title": "Help", "subreddit": "tifu", "article": None},
        "summaries": [{"text": "worse"}, {"text": "better"}],
        "choice": 1,
    }
    row = good(raw)
    assert turns(row) == (
        ["user: SUBREDDIT: r/tifu\n\nTITLE: Help\n\nPOST: Long story\n\nTL;DR:"],
        ["assistant: better"],
        ["assistant: worse"],
    )
    assert row.subset == "tldr"
    news = good(raw | {"info": {"article": "It rained", "post": None}})
    assert turns(news)[0] == ["user: ARTICLE: It rained\n\nTL;DR:"]
    assert news.subset == "news"
    assert bad(raw | {"info": {"title": "Help"}}).reason == "missing field"
    assert bad(raw | {"summaries": [{"text": "one"}]}).reason == "missing field"
    assert bad(raw | {"choice": 2}).reason == "bad value"


def test_helpsteer2_turns_in_marks() -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\nBye\n<extra_id_1>Assistant\n"
    row = good(SHAPES["HelpSteer2"] | {"prompt": prompt})
    assert turns(row)[0] == ["user: Hi", "assistant: Hello", "user: Bye"]


@pytest.mark.parametrize("shape", ["HelpSteer2", "HelpSteer3"])
def test_a_tie_is_a_pair_of_the_label_one_half(shape: str) -> None:
    row = good(SHAPES[shape] | {"preference_strength": 0, "overall_preference": 0})
    assert (row.tied, row.label, row.strength_mean) == (True, 0.5, 0.0)
    assert not good(SHAPES[shape]).tied


@pytest.mark.parametrize("shape", ["SHP", "PKU-SafeRLHF", "HelpSteer2", "HelpSteer3"])
def test_what_a_format_reads_of_a_label_is_not_unread(shape: str) -> None:
    """It stays with the row; in a row of another format it is one of the fields that nothing reads."""
    label = next(name for name in ("labels", "better_response_id", *PREFERENCES) if name in SHAPES[shape])
    row = good(SHAPES[shape] | {"annotator": "ab"})
    assert (label in row.others, row.unread) == (True, ("annotator",))
    assert good({"prompt": "2+2?", "chosen": "4", "rejected": "5", label: 1}).unread == (label,)


@pytest.mark.parametrize("shape", ["HelpSteer2", "HelpSteer3"])
def test_the_size_of_a_preference_is_its_strength_and_no_target_margin(shape: str) -> None:
    """Scaled Bradley-Terry multiplies the loss by the size; a margin as well would make another loss of it."""
    row = good(SHAPES[shape] | {"preference_strength": -3, "overall_preference": -3})
    assert (row.label, row.margin, row.strength_mean) == (1.0, None, 3.0)


def test_hh_text_of_many_turns_and_of_turns_that_hold_marks() -> None:
    said = "\n\nHuman: a\n\nAssistant: b: Human: c\n\nHuman: d\n\nAssistant:"
    row = good({"chosen": said + " yes\n\nno", "rejected": said + " no"})
    assert turns(row) == (
        ["user: a", "assistant: b: Human: c", "user: d"],
        ["assistant: yes\n\nno"],
        ["assistant: no"],
    )
    assert bad({"chosen": said, "rejected": said + " no"}).reason == "empty text"
    assert bad({"chosen": said + " a\n\nHuman: b", "rejected": said + " c"}).reason == "wrong role"


def test_a_response_that_looks_like_hh_text_stays_as_it_is() -> None:
    row = good({"prompt": "Write a dialogue", "chosen": "Human: hi\n\nAssistant: ho", "rejected": "no"})
    assert turns(row)[1] == ["assistant: Human: hi\n\nAssistant: ho"]


REAL = {
    "rejected_score_list": [
        3.546875,
        0.9921875,
        2.125,
        -0.330078125,
        1.171875,
        1.2578125,
        1.078125,
        1.0546875,
        3.546875,
        2.265625,
    ],
    "chosen_score_list": [
        3.71875,
        0.58984375,
        3.390625,
        0.006805419921875,
        -0.6953125,
        1.0390625,
        1.4140625,
        0.8359375,
        3.078125,
        2,
    ],
    "mean preference difference": -0.1331,
    "std preference difference": 0.7560,
    "chosen": ["What date did WWII start?", "In 1939.", "Where?", "In Poland."],
    "rejected": ["What date did WWII start?", "In 1939.", "Where?", "In Europe."],
}


def test_strength_cleaned_row() -> None:
    """The published row of the paper's data: mu = -.1331, std = .7560 over ten models."""
    row = good(REAL)
    assert turns(row)[0] == ["user: What date did WWII start?", "assistant: In 1939.", "user: Where?"]
    mean, std = reference.vote_strength(REAL["chosen_score_list"], REAL["rejected_score_list"])
    assert (row.strength_mean, row.strength_std) == pytest.approx((mean, std), abs=1e-12)
    assert (mean, std) == pytest.approx((-0.1331, 0.7560), abs=1e-4)
    assert len(row.votes) == 10
    assert row.votes[1] == 0.58984375 - 0.9921875
    assert row.clean is None


def test_strength_cleaned_other_spelling_and_gpt4_label() -> None:
    spelled = {name.replace("_score_list", " score list"): value for name, value in REAL.items()}
    assert good(spelled).votes == good(REAL).votes
    assert [good(REAL | {"GPT4 label": label}).clean for label in (1, 0, -1)] == [True, False, None]
    assert bad(REAL | {"GPT4 label": 2}).reason == "bad value"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mean preference difference": 0.1331}, "strength disagrees"),
        ({"std preference difference": 0.5}, "strength disagrees"),
        ({"chosen_score_list": [1.0]}, "bad value"),
        ({"chosen_score_list": ["1"] * 10}, "wrong type"),
        ({"chosen_score_list": [float("nan")] * 10}, "bad value"),
        ({"std preference difference": -1.0}, "bad value"),
    ],
)
def test_strengths_that_cannot_be(change: dict[str, Any], reason: str) -> None:
    assert bad(REAL | change).reason == reason


def test_a_sample_standard_deviation_agrees_too() -> None:
    spread = good(REAL).strength_std
    assert spread is not None
    sample = spread * math.sqrt(10 / 9)
    assert good(REAL | {"std preference difference": sample}).strength_std == spread


def test_votes_alone_are_read_only_when_asked_for() -> None:
    raw = SHAPES["explicit prompt, texts"] | {"votes": [3, 1, 0]}
    assert good(raw).votes == ()
    asked = good(raw, columns={"votes": "votes"})
    assert asked.votes == (3.0, 1.0, 0.0)
    assert asked.strength_mean == same(4 / 3)
    annotated = good(raw | {"strength_mean": 4 / 3})
    assert annotated.votes == (3.0, 1.0, 0.0)


def test_columns_that_are_written_here_are_not_told_to_be_unread() -> None:
    written = {*CLEAN_SCHEMA.names, *(name for name, _ in COLUMNS)}
    assert written - PLAIN_FIELDS == WRITTEN_FIELDS
    columns = PLAIN | dict.fromkeys(WRITTEN_FIELDS, "x") | {"annotator": "ada"}
    assert good(columns | {"strength_mean": 1.0}).unread == ("annotator",)
    assert good(columns | {"importance": None}).unread == tuple(sorted({*WRITTEN_FIELDS, "annotator"} - {"importance"}))


def test_every_optional_field() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    raw = SHAPES["explicit prompt, texts"] | {
        "id": 7,
        "prompt_id": "p",
        "subset": "easy",
        "label": 0.75,
        "margin": -2,
        "weight": 0.5,
        "gold_margin": 1.5,
        "clean": False,
        "tools": tools,
        "chat_template_kwargs": {"enable_thinking": False, "unused": None},
    }
    row = good(raw)
    assert (row.id, row.prompt_id, row.subset) == ("7", "p", "easy")
    assert (row.label, row.margin, row.weight, row.gold_margin, row.clean) == (0.75, -2.0, 0.5, 1.5, False)
    assert row.tools == tuple(tools)
    assert row.chat_template_kwargs == {"enable_thinking": False}
    assert good(raw | {"tools": json.dumps(tools)}) == row
    assert good(raw | {"tools": None, "functions": [{"name": "f"}]}) == row  # OpenAI's, before there were tools
    assert good(raw, subset="mine").subset == "mine"
    assert good(raw | {"label": True}).label == 1.0


def test_a_pair_whose_label_is_below_one_half_is_turned_round() -> None:
    voted = PLAIN | {
        "strength_mean": -1.0,
        "strength_std": 2.0,
        "votes": [1.0, -3.0],
        "margin": 0.5,
        "gold_margin": 2.0,
    }
    row = good(voted | {"label": 0.25, "clean": False})
    assert turns(row) == (["user: 2+2?"], ["assistant: 5"], ["assistant: 4"])
    assert (row.label, row.margin, row.gold_margin, row.clean) == (0.75, -0.5, -2.0, True)
    assert (row.strength_mean, row.strength_std, row.votes) == (1.0, 2.0, (-1.0, 3.0))
    assert row.is_turned
    assert row.id == good(voted).id  # of the texts as their file has them
    assert row.exchanged() == replace(good(voted | {"label": 0.5, "clean": False}), label=0.25)
    assert not any(good(voted | {"label": label}).is_turned for label in (0.5, 0.75, 1))


@given(st.floats(0, 0.5, exclude_max=True), st.floats(-3, 3), st.floats(-9, 9), st.floats(-9, 9))
def test_a_pair_that_is_turned_round_has_the_same_loss(label: float, margin: float, four: float, five: float) -> None:
    reward = {"4": torch.tensor([four], dtype=torch.float64), "5": torch.tensor([five], dtype=torch.float64)}
    row = good(PLAIN | {"label": label, "margin": margin})
    chosen, rejected = (reward[response[0]["content"]] for response in (row.chosen, row.rejected))
    turned = ranking_loss(chosen, rejected, row.label, row.margin or 0.0)
    assert turned.item() == same(ranking_loss(reward["4"], reward["5"], label, margin).item())


def test_values_that_tables_write_otherwise() -> None:
    """A column of numbers in which one is missing is of floats; decimals and UUIDs have types of their own."""
    name = UUID("12345678123456781234567812345678")
    row = good(PLAIN | {"id": 7.0, "prompt_id": name, "margin": Decimal("0.5"), "label": Decimal(1)})
    assert (row.id, row.prompt_id, row.margin, row.label) == ("7", str(name), 0.5, 1.0)
    assert isinstance(row.margin, float)


def test_a_row_says_where_it_stands_and_keeps_what_nobody_reads() -> None:
    row = good(PLAIN | {"id": "a", "kind": {"of": "sum"}, "messages": [USER], "score": None})
    assert (row.origin, row.place) == ("here", "here")
    assert replace(row, origin="").place == "pair a"
    assert row.others == {"kind": {"of": "sum"}}
    assert row == good(PLAIN | {"id": "a"})


def test_a_field_of_which_columns_read_a_part_is_read() -> None:
    """Responses were read out of `pair`, and the table said that nothing had read it."""
    raw = {"post": {"text": "2+2?"}, "pair": {"good": "4", "bad": "5"}, "a.b": "x", "a": "y", "source": "web"}
    columns = {"prompt": "post.text", "chosen": "pair.good", "rejected": "pair.bad", "subset": "a.b"}
    assert good(raw, columns=columns).unread == ("a", "source")


def test_a_prompt_that_begins_the_answer_is_continued_where_asked() -> None:
    begun = {"role": "assistant", "content": "It is", "reasoning_content": "Hm."}
    row = good({"prompt": [USER, begun], "chosen": " 4", "rejected": [FIVE]}, prefill="continue")
    assert row.prompt == (USER,)
    assert row.chosen == (begun | {"content": "It is 4"},)
    assert row.rejected == (begun | {"content": "It is5"},)
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    answer = {"role": "tool", "content": "4"}
    called = good({"prompt": [USER, call], "chosen": [answer, FOUR], "rejected": [answer, FIVE]})
    assert [turn["role"] for turn in called.prompt] == ["user", "assistant"]
    hh = good({"prompt": "\n\nHuman: 2+2?\n\nAssistant: It is", "chosen": " 4", "rejected": " 5"}, prefill="continue")
    assert turns(hh) == (SUM[0], ["assistant: It is 4"], ["assistant: It is 5"])


def test_tool_turns_keep_what_a_template_reads() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]}
    answer = {"role": "tool", "name": "add", "content": "4"}
    row = good({"prompt": [USER], "chosen": [call, answer, FOUR], "rejected": [FIVE]})
    assert row.chosen[0] == {"role": "assistant", "content": "", "tool_calls": tuple(call["tool_calls"])}
    assert row.chosen[1] == answer


def test_columns_map_and_hide_fields() -> None:
    raw = {"q": {"text": "2+2?"}, "answers": ["4", "5"], "agrees": False, "label": "yes", "human": 3}
    columns = {"prompt": "q.text", "chosen": "answers.0", "rejected": "answers.1", "clean": "agrees", "label": None}
    row = good(raw, columns=columns)
    assert turns(row) == SUM
    assert row.clean is False
    assert row.label == 1.0
    missing = bad(raw, columns=columns | {"margin": "strength"})
    assert missing.reason == "missing field"
    assert "'strength', which columns takes for 'margin', is missing; found 'q', 'answers'" in missing.detail
    null = bad(raw | {"agrees": None}, columns=columns)
    assert null.detail == (
        "field 'agrees', which columns takes for 'clean', is null: give the row a value, or leave 'clean' out of "
        "columns"
    )
    safer = SHAPES["PKU-SafeRLHF"] | {"safer_response_id": 0}
    assert turns(good(safer, columns={"better_response_id": "safer_response_id"}))[1] == ["assistant: 5"]


def test_a_field_with_a_dot_in_its_name_comes_first() -> None:
    raw = SHAPES["explicit prompt, texts"] | {"a.b": 0.5, "a": {"b": 0.75}}
    assert good(raw, columns={"label": "a.b"}).label == 0.5


def test_ids_are_digests_of_the_text_alone() -> None:
    row = good(SHAPES["explicit prompt, texts"])
    assert {good(raw).prompt_id for name, raw in SHAPES.items() if name != "UltraFeedback binarized"} == {row.prompt_id}
    assert {good(raw).id for raw in SHAPES.values()} == {row.id}
    assert len(row.prompt_id) == 12
    assert row.prompt_id == hashlib.sha256(b'[{"content":"2+2?","role":"user"}]').hexdigest()[:12]
    assert good({"chosen": "a", "rejected": "b"}).prompt_id != good({"chosen": "a", "rejected": "c"}).prompt_id


@given(st.lists(st.sampled_from("ab"), max_size=6), st.lists(st.sampled_from("ab"), max_size=6))
@settings(max_examples=60)
def test_implicit_prompt_is_the_longest_common_prefix_of_turns(first: list[str], second: list[str]) -> None:
    sides = [[{"role": "user", "content": text} for text in side] + [FOUR] for side in (first, second)]
    shared = reference.num_shared_turns(*sides)
    row = good({"chosen": sides[0], "rejected": sides[1]})
    assert [list(row.prompt), list(row.chosen), list(row.rejected)] == [
        sides[0][:shared],
        sides[0][shared:],
        sides[1][shared:],
    ]


@given(st.text("ab\n", min_size=1), st.text("ab\n", min_size=1))
@settings(max_examples=150)
def test_implicit_prompt_of_texts_ends_at_a_line_break(first: str, second: str) -> None:
    row = parse_row({"chosen": first, "rejected": second}, "here", format="preference")
    if not first.strip() or not second.strip():
        assert isinstance(row, BadRow)
        assert row.reason == "empty text"
        return
    assert isinstance(row, PairRow)
    shared = reference.shared_lines(first.rstrip(), second.rstrip())
    assert [turn["content"] for turn in row.prompt] == ([shared.rstrip()] if shared.strip() else [])
    assert row.chosen[0]["content"] == first[len(shared) :]
    assert row.rejected[0]["content"] == second[len(shared) :]


def test_two_answers_that_begin_alike_have_no_prompt() -> None:
    row = good({"chosen": "I think that it is blue.", "rejected": "I think that it is green."})
    assert turns(row) == ([], ["assistant: I think that it is blue."], ["assistant: I think that it is green."])


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "2+2?", "responses": ["4", "5"], "scores": [1, 0]},
        {"prompt": "2+2?", "response": "4", "score": 1},
        {"prompt": "2+2?", "response": "4", "helpfulness": 4, "correctness": 4, "coherence": 4},
        {"instruction": "2+2?", "completions": [{"response": "4"}, {"response": "5"}]},
    ],
)
def test_rows_of_scored_responses_are_told_who_reads_them(raw: dict[str, Any]) -> None:
    assert "; data=scored reads responses with their scores" in bad(raw).detail
    assert "data=scored" not in bad({"prompt": "2+2?", "response": "4"}).detail


PLAIN = SHAPES["explicit prompt, texts"]
NESTED: Any = reduce(lambda inner, _: [inner], range(500), {"name": "f"})
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "unknown format"),
    ({"prompt": "a", "response": "b"}, "unknown format"),
    ({"chosen": "a"}, "missing field"),
    ({"chosen": None, "rejected": "b"}, "missing field"),
    (PLAIN | {"chosen": "  \n"}, "empty text"),
    (PLAIN | {"chosen": []}, "empty text"),
    (PLAIN | {"chosen": [{"role": "assistant", "content": ""}]}, "empty text"),
    (PLAIN | {"prompt": [USER, {"role": "assistant", "content": " "}, USER]}, "empty text"),
    (PLAIN | {"prompt": 3}, "wrong type"),
    (PLAIN | {"chosen": 4}, "wrong type"),
    (PLAIN | {"chosen": ["4", FOUR]}, "wrong type"),
    (PLAIN | {"chosen": b"4"}, "wrong type"),
    (PLAIN | {"chosen": [{"role": "assistant"}]}, "wrong type"),
    (PLAIN | {"chosen": [{"content": "4"}]}, "wrong type"),
    (PLAIN | {"chosen": [{"role": "assistant", "content": [{"type": "image", "image": "4.png"}]}]}, "not text"),
    (PLAIN | {"chosen": ["4", "4!", "four"], "rejected": ["5", "5!", "five"]}, "several responses"),
    (PLAIN | {"chosen": [{"role": "robot", "content": "4"}]}, "unknown role"),
    (PLAIN | {"chosen": [FOUR, USER]}, "wrong role"),
    (PLAIN | {"chosen": [{"role": "user", "content": "3+3?"}, FOUR]}, "prompt disagrees"),
    (PLAIN | {"chosen": "\ud800"}, "bad encoding"),
    ({"chosen": [USER, FOUR], "rejected": "5"}, "wrong type"),
    (PLAIN | {"label": "true"}, "wrong type"),
    (PLAIN | {"label": 1.5}, "bad value"),
    (PLAIN | {"label": 101}, "bad value"),
    (PLAIN | {"label": Decimal("NaN")}, "bad value"),
    (PLAIN | {"margin": "0.5"}, "wrong type"),
    (PLAIN | {"id": float("nan")}, "wrong type"),
    (PLAIN | {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "bad value"),
    (PLAIN | {"tools": NESTED}, "too large"),
    (PLAIN | {"kind": NESTED}, "too large"),
    (PLAIN | {"tools": json.dumps(NESTED)}, "too large"),
    (PLAIN | {"tools": '[{"name": "f", "name": "g"}]'}, "duplicate key"),
    (PLAIN | {"tools": '[{"name": "f", "most": 1e400}]'}, "bad value"),
    (PLAIN | {"tools": '[{"name": "f", "most": Infinity}]'}, "bad value"),
    (PLAIN | {"tools": [{"name": "f", "most": float("nan")}]}, "wrong type"),  # as Parquet may have it
    (PLAIN | {"prompt": [USER, FOUR]}, "prefill"),
    (PLAIN | {"prompt": ["2+2?", "4"]}, "prefill"),
    (PLAIN | {"label": -0.1}, "bad value"),
    (PLAIN | {"label": float("nan")}, "bad value"),
    (PLAIN | {"margin": float("inf")}, "bad value"),
    (PLAIN | {"margin": 10**400}, "bad value"),
    (PLAIN | {"margin": True}, "wrong type"),
    (PLAIN | {"weight": -1}, "bad value"),
    (PLAIN | {"clean": 0.5}, "bad value"),
    (PLAIN | {"id": 1.5}, "wrong type"),
    (PLAIN | {"prompt_id": " "}, "empty text"),
    (PLAIN | {"strength_mean": 1.0, "votes": "1 2"}, "wrong type"),
    (PLAIN | {"strength_mean": 1.0, "votes": [1.0, None]}, "wrong type"),
    (PLAIN | {"strength_mean": 1.0, "votes": [2.0, 2.0]}, "strength disagrees"),
    (PLAIN | {"tools": "[{"}, "broken JSON"),
    (PLAIN | {"tools": {"name": "f"}}, "wrong type"),
    (PLAIN | {"tools": [{"name": b"f"}]}, "wrong type"),
    (PLAIN | {"chat_template_kwargs": [1]}, "wrong type"),
    (SHAPES["PKU-SafeRLHF"] | {"better_response_id": None}, "missing field"),
    (SHAPES["PKU-SafeRLHF"] | {"better_response_id": True}, "bad value"),
    (SHAPES["SHP"] | {"history": None}, "missing field"),
    (SHAPES["HelpSteer3"] | {"overall_preference": 4}, "bad value"),
]


@pytest.mark.parametrize(("raw", "reason"), BAD)
def test_a_bad_row_has_its_reason(raw: dict[str, Any], reason: str) -> None:
    row = bad(raw)
    assert row.reason == reason
    assert reason not in EXPECTED_REASONS
    row.detail.encode()


def test_details_help() -> None:
    assert "'prompt', 'answer'" in bad({"prompt": "a", "answer": "b"}).detail
    assert "columns={prompt: null}" in bad(PLAIN | {"chosen": [{"role": "user", "content": "3?"}, FOUR]}).detail
    assert "between 0 and 1" in bad(PLAIN | {"label": 200}).detail
    assert "found 85; of a column in 0..100 write the hundredth part, 0.85 here" in bad(PLAIN | {"label": 85}).detail
    assert "found '0.5'; write it as a number, without quotes" in bad(PLAIN | {"margin": "0.5"}).detail
    assert "found 1.5; write it as text" in bad(PLAIN | {"id": 1.5}).detail
    assert "sets 'tokenize', which may not be set" in bad(PLAIN | {"chat_template_kwargs": {"tokenize": 1}}).detail
    assert "list of 3 texts without roles beside a prompt" in bad(PLAIN | {"rejected": ["5", "5!", "five"]}).detail
    assert "prefill=continue" in bad(PLAIN | {"prompt": [USER, FOUR]}).detail
    assert "'robot'" in bad(PLAIN | {"chosen": [{"role": "robot", "content": "4"}]}).detail


def test_a_fixed_format_is_held_to() -> None:
    hh = SHAPES["HH-RLHF text"]
    assert turns(good(hh, format="hh_text")) == SUM
    assert turns(good(hh, format="preference")) == (
        ["user: \n\nHuman: 2+2?"],
        ["assistant: Assistant: 4"],
        ["assistant: Assistant: 5"],
    )
    assert bad(PLAIN, format="hh_text").reason == "wrong type"
    assert bad(PLAIN, format="shp").reason == "missing field"
    assert set(FORMATS) >= {"preference", "hh_text", "strength_cleaned", "safe_rlhf", "shp", "summaries", "helpsteer"}
