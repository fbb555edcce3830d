"""One message in all its forms, and one conversation: as training reads a row's, so whoever asks for a reward."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightning_rm.data.formats.fields import RowError
from lightning_rm.data.formats.limits import MAX_CHARACTERS, MAX_DEPTH
from lightning_rm.data.formats.messages import is_blank, read_message
from lightning_rm.data.formats.turns import read_conversation
from tests.data.formats.test_pairs import FOUR, USER, bad, good

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": None}}}


NOW = {"function": {"name": "now", "arguments": {}}}


def message(**keys: Any) -> Any:
    return read_message({"role": "assistant", "content": "4"} | keys, "turn 0")


def test_whatever_a_message_says_stays_in_it() -> None:
    said = {"reasoning_content": "2 and 2", "thinking": " ", "prefix": True, "citations": [{"url": "a", "rank": None}]}
    assert message(**said, audio=None) == {"role": "assistant", "content": "4"} | said
    assert message(content=None, refusal="No.") == {"role": "assistant", "content": "No."}
    assert message(refusal="No.") == {"role": "assistant", "content": "4", "refusal": "No."}
    with pytest.raises(RowError, match="turn 0, audio must be JSON-like data"):
        message(audio=b"a")


def test_pairs_that_differ_in_their_thoughts_alone_differ() -> None:
    row = good(
        {
            "prompt": [USER],
            "chosen": [FOUR | {"reasoning_content": "2 and 2"}],
            "rejected": [FOUR | {"reasoning_content": "A guess."}],
        }
    )
    assert row.chosen != row.rejected
    assert row.chosen == (FOUR | {"reasoning_content": "2 and 2"},)


def test_a_repeated_prompt_that_says_more_is_not_lost() -> None:
    asked = USER | {"mood": "angry"}
    raw = {"prompt": "2+2?", "chosen": [asked, FOUR], "rejected": [asked, {"role": "assistant", "content": "5"}]}
    row = bad(raw)
    assert row.reason == "prompt disagrees"
    assert "says more of turn 0 than the prompt does: mood; read" in row.detail
    assert good(raw, columns={"prompt": None}).prompt == (asked,)


@pytest.mark.parametrize(
    ("form", "calls"),
    [
        ({"tool_calls": [CALL]}, [CALL]),
        ({"tool_calls": json.dumps([CALL])}, [CALL]),
        ({"tool_calls": [CALL | {"function": {"name": "add", "arguments": '{"a": 2, "b": null}'}}]}, [CALL]),
        ({"tool_calls": [{"name": "add", "arguments": '{"a": 2}'}]}, [{"name": "add", "arguments": {"a": 2}}]),
        (
            {"tool_calls": [{"function": {"name": "now", "arguments": ""}}]},
            [{"function": {"name": "now", "arguments": {}}}],
        ),
        ({"tool_calls": [{"function": {"name": "now"}}]}, [NOW]),
        (
            {"function_call": {"name": "f", "arguments": "{}"}},
            [{"type": "function", "function": {"name": "f", "arguments": {}}}],
        ),
        (
            {"role": "function_call", "content": '{"name": "f", "arguments": {"a": 1}}'},
            [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}],
        ),
        (
            {"role": "tool_call", "content": '[{"name": "f", "arguments": "{}"}, {"name": "g"}]'},
            [{"type": "function", "function": {"name": name, "arguments": {}}} for name in "fg"],
        ),
    ],
)
def test_every_form_of_a_tool_call_is_the_object_form(form: dict[str, Any], calls: list[Any]) -> None:
    found = message(content=None, **form) if "role" not in form else message(**form)
    assert found == {"role": "assistant", "content": "", "tool_calls": tuple(calls)}


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        (
            [{"function": {"name": "f", "arguments": "{"}}],
            "turn 0, tool_calls, call 0, arguments is not JSON",
        ),
        ([{"function": {"name": "f", "arguments": '"a"'}}], "arguments must be a JSON object, found 'a'"),
        ([{"function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}], "the key 'a' stands twice"),
        ([{"function": "f"}], "function must have a name and arguments"),
        ([{"function": {"name": "f", "arguments": [1]}}], "arguments must be a JSON object, found [1]"),
        ([{"name": "f", "arguments": 5}], "arguments must be a JSON object, found 5"),
        ("add(2)", "turn 0, tool_calls is not JSON"),
        ({"name": "f"}, "must be a list of calls"),
    ],
)
def test_calls_that_cannot_be_read(calls: Any, words: str) -> None:
    with pytest.raises(RowError) as caught:
        message(tool_calls=calls)
    assert words in str(caught.value)


def test_text_in_parts_is_text_and_an_image_is_an_error() -> None:
    assert message(content=[{"type": "text", "text": "4"}])["content"] == "4"
    assert message(content=[{"type": "text", "text": "a", "image_url": None}, "b"])["content"] == "a\nb"
    assert message(content={"type": "output_text", "text": "4"})["content"] == "4"
    for kind in ({"a": 1}, ["text"], None, 3):
        with pytest.raises(RowError, match="content, part 0 is of the type"):
            message(content={"type": kind, "text": "a"})
    for kind in ("image_url", "image", "input_audio", "thinking"):
        with pytest.raises(RowError, match=f"content, part 1 is of the type '{kind}', and a reward model"):
            message(content=[{"type": "text", "text": "See"}, {"type": kind, kind: "a"}])
    with pytest.raises(RowError, match="part 0 must be text, found None"):
        message(content=[{"type": "text"}])


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("developer", "system"),
        ("observation", "tool"),
        ("function", "tool"),
        ("Tool_Response", "tool"),
        ("Human", "user"),
    ],
)
def test_roles_of_other_formats(role: str, name: str) -> None:
    assert message(role=role)["role"] == name
    assert read_message({"from": role, "value": "4"}, "turn 0") == {"role": name, "content": "4"}


def test_a_turn_that_says_nothing() -> None:
    assert is_blank(message(content=" ", name="a", model="gpt"))
    assert not is_blank(message(content="", thinking="Hm."))
    assert not is_blank(message(content="", tool_calls=[CALL]))


def test_keys_without_a_column_come_back() -> None:
    assert message(other_keys='{"rank": 1, "content": "5"}') == {"role": "assistant", "content": "4", "rank": 1}


def test_nesting_is_bounded() -> None:
    deep: Any = "a"
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    assert message(deep=deep)["deep"] == deep
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RowError, match="turn 0, deep is nested more than 64 deep"):
        message(deep=deep)


def test_a_conversation_of_endless_text_is_refused() -> None:
    row = bad({"prompt": "2+2?", "chosen": "4" * (MAX_CHARACTERS + 1), "rejected": "5"})
    assert row.reason == "too large"
    assert "chosen has 2,097,153 characters" in row.detail


@pytest.mark.parametrize(
    "first", [USER, {"from": "human", "value": "2+2?"}, USER | {"content": [{"type": "text", "text": "2+2?"}]}]
)
@pytest.mark.parametrize("last", [FOUR, {"from": "gpt", "value": "4"}])
def test_one_conversation_in_any_form(first: Any, last: Any) -> None:
    assert read_conversation([first, last], "conversation 0") == [USER, FOUR]
    assert read_conversation((first, FOUR | {"content": ""}), "conversation 0") == [USER, FOUR | {"content": ""}]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2+2? 4", "conversation 3 is a text, '2+2? 4'; a conversation is a list of messages"),
        (FOUR, "conversation 3 is one message"),
        ({"prompt": "2+2?", "response": "4"}, "conversation 3 is a mapping of prompt, response"),
        (7, "conversation 3 is of the type int"),
        ([], "conversation 3: empty text: it has no turn"),
        (["2+2?", "4"], "turn 0 must be a message with role and content, found '2+2?'"),
        ([[USER, FOUR]], "turn 0 must be a message with role and content"),
        ([USER], "it must end with the assistant's turn"),
        ([USER | {"content": " "}, FOUR], "prompt, turn 0 (user) is empty"),
        ([{"role": "robot", "content": "4"}], "unknown role"),
    ],
)
def test_what_is_no_conversation_gets_a_sentence(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=r"^conversation 3") as caught:
        read_conversation(value, "conversation 3")
    assert words in str(caught.value)
