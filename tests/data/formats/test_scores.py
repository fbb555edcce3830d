"""Scored responses as they are published: numbers, ranks, attributes with gaps; and what no score can be."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.data.formats.fields import RowError
from lightning_rm.data.formats.groups import GROUP_FIELDS, parse_group
from lightning_rm.data.formats.published import plain_fields
from lightning_rm.data.formats.scores import SCORE_FIELDS
from lightning_rm.data.rows import BadRow, GroupRow
from tests.data.formats.test_fuzz_rows import REASONS, values

LIST = {"prompt": "2+2?", "responses": ["4", "5"]}
ALONE = {"prompt": "2+2?", "response": "4", "score": 0.25}
ATTRIBUTES = {"scores": [{"a": 1, "b": None}, {"b": 2}]}
HELPSTEER = {"prompt": "2+2?", "response": "4", "helpfulness": 3, "correctness": 4, "coherence": None}
THUMB = {"prompt": "2+2?", "completion": "4", "label": True}
TALK = {
    "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
    "label": False,
}
ULTRAFEEDBACK = {
    "source": "evol_instruct",
    "instruction": "2+2?",
    "completions": [
        {"response": "4", "annotations": {"helpfulness": {"Rating": "5"}, "honesty": {"Rating": "N/A"}}},
        {"response": "5", "annotations": {"helpfulness": {"Rating": "1"}, "honesty": {"Rating": "2"}}},
    ],
}


def good(raw: dict[str, Any]) -> GroupRow:
    row = parse_group(raw, "here")
    assert isinstance(row, GroupRow), row
    return row


@pytest.mark.parametrize(
    ("raw", "scores"),
    [
        (LIST, ()),
        (LIST | {"scores": [2, 0.5]}, ({"score": 2.0}, {"score": 0.5})),
        (LIST | {"ranks": [1, 2]}, ({"score": -1.0}, {"score": -2.0})),
        (LIST | ATTRIBUTES, ({"a": 1.0}, {"b": 2.0})),
        (ALONE, ({"score": 0.25},)),
        (THUMB, ({"score": 1.0},)),
        (THUMB | {"completion": [{"role": "assistant", "content": "4"}], "label": 0.75}, ({"score": 0.75},)),
        (TALK, ({"score": 0.0},)),
        (ALONE | {"score": None, "label": 0}, ({"score": 0.0},)),
        (ALONE | {"label": 0}, ({"score": 0.25},)),
        (HELPSTEER, ({"helpfulness": 3.0, "correctness": 4.0},)),
        (ULTRAFEEDBACK, ({"helpfulness": 5.0}, {"honesty": 2.0, "helpfulness": 1.0})),
    ],
)
def test_scores_of_any_shape(raw: dict[str, Any], scores: tuple[dict[str, float], ...]) -> None:
    row = good(raw)
    assert row.scores == scores
    assert [turn["content"] for turn in row.prompt] == ["2+2?"]
    assert [response[-1]["content"] for response in row.responses] == ["4", "5"][: len(row.responses)]


def test_a_row_of_scores_has_a_weight_and_says_what_is_not_read() -> None:
    row = good(LIST | {"scores": [2, 1], "weight": 0.5, "margin": 2, "gold": [1, 2], "source": "web", "empty": None})
    assert (row.weight, row.unread) == (0.5, ("gold", "margin", "source"))
    assert good(LIST | {"gold": [1, 2], "source": "web"}).unread == ()
    assert good(ULTRAFEEDBACK).unread == ("source",)
    named = parse_group(LIST | {"points": [2, 1], "w": 3}, "here", {"scores": "points", "weight": "w"})
    assert isinstance(named, GroupRow)
    assert (named.weight, named.unread) == (3.0, ())
    assert isinstance(parse_group(LIST | {"scores": [2, 1], "weight": -1}, "here"), BadRow)


def test_a_thumb_is_a_score_and_a_label_beside_scores_is_not_read() -> None:
    assert good(THUMB | {"source": "web"}).unread == ("source",)
    assert good(TALK).unread == ()
    assert good(ALONE | {"label": 0}).unread == ("label",)
    named = parse_group(
        {"prompt": "2+2?", "text": "4", "liked": True}, "here", {"completion": "text", "label": "liked"}
    )
    assert isinstance(named, GroupRow)
    assert (named.scores, named.unread) == (({"score": 1.0},), ())
    for spoiled, detail in (
        (THUMB | {"label": "up"}, "field 'label' must be a number, found 'up'"),
        (THUMB | {"label": 5}, "field 'label' must be between 0 and 1"),
        (TALK | {"messages": TALK["messages"][:1]}, "a list of turns, two at least"),
        (TALK | {"prompt": "3+3?"}, "the row has 'prompt' beside 'messages'"),
    ):
        row = parse_group(spoiled, "here")
        assert isinstance(row, BadRow)
        assert detail in row.detail
    with pytest.raises(RowError, match="experiment=unpaired trains on single responses with a label"):
        plain_fields(THUMB, "auto")


def test_helpsteer2_marks_are_turns() -> None:
    marked = "Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\n2+2?\n<extra_id_1>Assistant\n"
    assert [turn["role"] for turn in good(HELPSTEER | {"prompt": marked}).prompt] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("spoiled", "detail"),
    [
        ({"scores": [1]}, "'scores' has 1 items for 2 responses"),
        ({"scores": [1, "2"]}, "write it as a number, without quotes"),
        ({"scores": [1, math.nan]}, "must be finite"),
        ({"scores": [{}, {"a": 1}]}, "item 0 has no score at all"),
        ({"scores": [{"\ud800": 1}, 2]}, "item 0, the name of a score holds half a surrogate pair"),
        ({"scores": 3}, "must be a list"),
        ({"ranks": [1, {}]}, "must be a number"),
        ({"ranks": [1, None]}, "item 1 is null; leave the response out"),
        ({"scores": [None, 1]}, "item 0 is null; leave the response out"),
        ({"scores": [1, 2], "ranks": [2, 1]}, "'scores' and 'ranks'"),
    ],
)
def test_bad_scores_say_why(spoiled: dict[str, Any], detail: str) -> None:
    row = parse_group(LIST | spoiled, "here")
    assert isinstance(row, BadRow)
    assert detail in row.detail


@given(
    st.sampled_from(
        [
            *(LIST, LIST | {"scores": [2, 1]}, LIST | ATTRIBUTES, LIST | {"ranks": [2, 1]}),
            *(ALONE, HELPSTEER, ULTRAFEEDBACK, THUMB, TALK),
        ]
    ),
    st.dictionaries(st.sampled_from(sorted(GROUP_FIELDS | SCORE_FIELDS)), values, max_size=2),
)
@settings(max_examples=300)
def test_a_spoiled_row_gives_its_group_or_its_reason(raw: dict[str, Any], spoiled: dict[str, Any]) -> None:
    row = parse_group(raw | spoiled, "here")
    if isinstance(row, BadRow):
        assert row.reason in REASONS, row
        row.detail.encode()
        return
    assert len(row.scores) in (0, len(row.responses))
    assert all(type(value) is float and math.isfinite(value) for scores in row.scores for value in scores.values())
