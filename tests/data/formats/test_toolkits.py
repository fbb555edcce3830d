"""What other toolkits write: the prompt in all its parts, who is chosen, and what no format may lose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_rm.data.formats.asked import PROMPT_FIELDS, SYSTEM_FIELDS
from lightning_rm.data.formats.columns import check_options
from lightning_rm.data.rows import EXPECTED_REASONS, BadRow, PairRow
from lightning_rm.data.sources.files import FileSource
from tests.data.formats.test_pairs import FIVE, FOUR, SHAPES, SUM, USER, bad, good, turns

BE_BRIEF = {"role": "system", "content": "Be brief."}
TEXTS = {"chosen": "4", "rejected": "5"}
ALPACA = {"instruction": "Add.", "input": "2+2", **TEXTS}
SHAREGPT = SHAPES["sharegpt ranking"]
NEMO = SHAPES["NeMo RL"]
SWIFT = SHAPES["ms-swift"]
OPENAI = SHAPES["OpenAI"]


def test_alpaca_joins_its_lines_after_system_and_history() -> None:
    row = good(ALPACA | {"system": "Be brief.", "history": [["1+1?", "2"], ["Sure?", "Yes."]]})
    assert turns(row) == (
        ["system: Be brief.", "user: 1+1?", "assistant: 2", "user: Sure?", "assistant: Yes.", "user: Add.\n2+2"],
        ["assistant: 4"],
        ["assistant: 5"],
    )
    assert turns(good(ALPACA | {"system": "", "history": []}))[0] == ["user: Add.\n2+2"]


def test_system_beside_a_prompt_is_its_first_turn() -> None:
    """axolotl's `prompt_pairs`; a number is not a system turn."""
    raw = {"prompt": "2+2?", **TEXTS}
    assert turns(good(raw | {"system": "Be brief."}))[0] == ["system: Be brief.", "user: 2+2?"]
    assert good(raw | {"system": "Be brief."}) == good(raw | {"prompt": [BE_BRIEF, USER]})
    assert good(raw | {"system": ""}) == good(raw | {"system": 3}) == good(raw)
    asked = {"chosen": [USER, {"role": "assistant", "content": "4"}], "rejected": [USER, FIVE], "system": "Be brief."}
    assert turns(good(asked))[0] == ["system: Be brief.", "user: 2+2?"]


def test_sharegpt_reads_its_turns_after_system() -> None:
    conversations = [
        {"from": "human", "value": "1+1?"},
        {"from": "gpt", "value": "2"},
        {"from": "human", "value": "2+2?"},
    ]
    raw = SHAREGPT | {"conversations": conversations}
    asked = ["user: 1+1?", "assistant: 2", "user: 2+2?"]
    assert turns(good(raw)) == (asked, *SUM[1:])
    assert turns(good(raw | {"system": "Be brief."})) == (["system: Be brief.", *asked], *SUM[1:])
    begun = raw | {"conversations": [{"from": "system", "value": "Be brief."}, *conversations]}
    assert good(begun | {"system": " Be brief."}) == good(begun) == good(raw | {"system": "Be brief."})


@pytest.mark.parametrize("name", ["question", "input"])
def test_orca_reads_either_spelling_after_system(name: str) -> None:
    assert turns(good({"system": "Be brief.", name: "2+2?", **TEXTS})) == (
        ["system: Be brief.", "user: 2+2?"],
        *SUM[1:],
    )
    assert turns(good({name: "2+2?", **TEXTS})) == SUM


def test_nemo_rl_prefers_the_lower_rank() -> None:
    five, four = NEMO["completions"]
    assert turns(good(NEMO | {"completions": [four, five | {"rank": 7}]})) == SUM
    flipped = good(NEMO | {"completions": [four | {"rank": 2}, five]})
    assert turns(flipped) == (SUM[0], SUM[2], SUM[1])
    assert good(NEMO | {"completions": [four, five | {"rank": 0}]}).tied
    assert not flipped.tied


def test_ms_swift_replaces_all_that_follows_the_last_user_turn() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]}
    answer = {"role": "tool", "content": "4"}
    row = good(
        {"messages": [BE_BRIEF, USER, FIVE, USER, call, answer, FOUR], "rejected_response": [call, answer, FIVE]}
    )
    assert turns(row) == (
        ["system: Be brief.", "user: 2+2?", "assistant: 5", "user: 2+2?"],
        ["assistant: ", "tool: 4", "assistant: 4"],
        ["assistant: ", "tool: 4", "assistant: 5"],
    )


def test_an_old_output_of_two_texts() -> None:
    row = good({"instruction": "2+2?", "output": ["4", "5"]})
    assert (turns(row), row) == (SUM, good({"instruction": "2+2?", "chosen": "4", "rejected": "5"}))
    assert good({"instruction": "2+2?", "output": ["4", "5"]}, format="alpaca") == row


def test_ms_swift_with_a_whole_rejected_conversation() -> None:
    raw = {"messages": [USER, FOUR]}
    assert turns(good(raw | {"rejected_messages": [USER, FIVE]})) == SUM
    assert turns(good(raw | {"rejected_messages": [FIVE]})) == SUM
    sure = {"role": "user", "content": "Sure?"}
    longer = good({"messages": [USER, FOUR, sure, FOUR], "rejected_messages": [USER, FIVE, sure, FIVE]})
    assert turns(longer) == (
        ["user: 2+2?"],
        ["assistant: 4", "user: Sure?", "assistant: 4"],
        ["assistant: 5", "user: Sure?", "assistant: 5"],
    )


def test_openai_brings_its_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    raw = OPENAI | {"input": {"messages": [BE_BRIEF, USER], "tools": tools}}
    assert turns(good(raw))[0] == ["system: Be brief.", "user: 2+2?"]
    assert good(raw).tools == tuple(tools)
    assert good(raw | {"tools": [{"type": "mine"}]}).tools == ({"type": "mine"},)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    (ALPACA | {"instruction": " ", "input": ""}, "empty text", "'instruction' and 'input' are empty"),
    (ALPACA | {"input": ["2+2"]}, "wrong type", "field 'input' must be text"),
    (ALPACA | {"output": ["4", "5", "6"], "chosen": None, "rejected": None}, "bad value", "a list of two responses"),
    (ALPACA | {"system": USER}, "wrong type", "field 'system' must be a system turn, found one of the role 'user'"),
    (ALPACA | {"system": {"says": "Be brief."}}, "wrong type", "field 'system', content, part 0 must be text"),
    (ALPACA | {"history": "1+1? 2"}, "wrong type", "list of [user, assistant] texts"),
    (ALPACA | {"history": [["1+1?"]]}, "wrong type", "list of [user, assistant] texts"),
    (ALPACA | {"history": [["1+1?", 2]]}, "wrong type", "field 'history', pair 0, assistant must be text"),
    (ALPACA | {"history": [["1+1?", ""]]}, "empty text", "prompt, turn 1 (assistant) is empty"),
    (ALPACA | {"rejected": None}, "missing field", "field 'rejected' is null"),
    (SHAREGPT | {"conversations": []}, "wrong role", "conversations must end with the turn that the responses answer"),
    (SHAREGPT | {"conversations": [USER, FOUR]}, "wrong role", "found ({'content': '4', 'role': 'assistant'},)"),
    (SHAREGPT | {"conversations": [{"from": "robot", "value": "?"}]}, "unknown role", "'robot'"),
    (SHAREGPT | {"conversations": [BE_BRIEF, USER], "system": "Rhyme."}, "prompt disagrees", "columns={system: null}"),
    (NEMO | {"completions": NEMO["completions"][0]}, "wrong type", "must be a list of two completions"),
    (NEMO | {"completions": NEMO["completions"][:1]}, "bad value", "holds 1, and a pair is two"),
    (NEMO | {"completions": [{"rank": n, "completion": [FOUR]} for n in range(3)]}, "bad value", "expand the row"),
    (NEMO | {"completions": [{"completion": [FOUR]}] * 2}, "missing field", "'completions.0.rank'"),
    (NEMO | {"completions": [{"rank": "a", "completion": [FOUR]}] * 2}, "wrong type", "'completions.0.rank'"),
    (NEMO | {"completions": [{"rank": 0, "completion": [FOUR]}, {"rank": 1}]}, "missing field", "1.completion'"),
    (SWIFT | {"messages": [USER]}, "empty text", "chosen is empty"),
    (SWIFT | {"messages": [FOUR]}, "wrong role", "messages must hold a user's turn"),
    (SWIFT | {"messages": []}, "wrong role", "messages must hold a user's turn"),
    (SWIFT | {"rejected_response": [BE_BRIEF, FIVE]}, "prompt disagrees", "rejected begins with a system turn"),
    (OPENAI | {"input": {"prompt": [USER]}}, "missing field", "field 'input.messages' is missing"),
    (OPENAI | {"preferred_output": []}, "empty text", "chosen is empty"),
]


@pytest.mark.parametrize(("raw", "reason", "detail"), WRONG)
def test_each_way_to_be_wrong(raw: dict[str, Any], reason: str, detail: str) -> None:
    row = bad(raw)
    assert row.reason == reason
    assert detail in row.detail


def test_a_fixed_toolkit_format_is_held_to() -> None:
    for name, missing in [
        ("alpaca", "'instruction'"),
        ("sharegpt", "'conversations'"),
        ("orca", "'question'"),
        ("nemo_rl", "'completions'"),
        ("ms_swift", "'messages'"),
        ("openai", "'input.messages'"),
    ]:
        check_options(name, {})
        row = bad(SHAPES["explicit prompt, texts"], format=name)
        assert row.reason == "missing field"
        assert missing in row.detail
    more = {"question": "Add.", "context": "2+2", **TEXTS}
    assert "'context' asks more" in bad(more, format="orca").detail
    assert turns(good(more, format="orca", columns={"context": None}))[0] == ["user: Add."]


@pytest.mark.parametrize("name", [name for name in PROMPT_FIELDS if name not in ("instruction", "question", "input")])
def test_a_prompt_that_no_format_reads_is_no_pair(name: str) -> None:
    value = [USER] if name in ("conversation", "dialogue", "messages", "history") else "2+2?"
    raw = {name: value, **TEXTS}
    if name == "conversations":
        assert turns(good(raw)) == SUM
        return
    row = bad(raw)
    assert row.reason == "unread prompt"
    assert row.reason not in EXPECTED_REASONS
    assert f"the row has {name!r}; columns={{prompt: {name}}} reads" in row.detail
    assert "columns={prompt: null} says" in row.detail
    assert "instruction" not in row.detail.replace(name, "")
    assert turns(good(raw, columns={"prompt": name})) == SUM
    assert turns(good(raw, columns={"prompt": None})) == ([], *SUM[1:])
    assert turns(good(raw, columns={name: None})) == ([], *SUM[1:])


@pytest.mark.parametrize(
    "responses",
    [
        TEXTS,
        {"chosen": "Sure!\n4", "rejected": "Sure!\n5"},
        {"chosen": [FOUR], "rejected": [FIVE]},
        {"chosen": [BE_BRIEF, FOUR], "rejected": [BE_BRIEF, FIVE]},
        {"chosen": ["4"], "rejected": ["5"]},
        {"prompt": "", **TEXTS},
        {"prompt": " ", **TEXTS},
        {"prompt": [], "chosen": [FOUR], "rejected": [FIVE]},
    ],
)
def test_whatever_the_responses_are(responses: dict[str, Any]) -> None:
    assert bad({"query": "2+2?"} | responses).reason == "unread prompt"
    assert bad({"query": "2+2?"} | responses, format="preference").reason == "unread prompt"


TRANSCRIPTS = [
    *("implicit prompt, messages", "Skywork", "HH-RLHF text", "lists of texts", "ShareGPT", "strength-cleaned"),
    *("explicit prompt, texts", "explicit prompt, messages", "UltraFeedback binarized"),
]


@pytest.mark.parametrize("shape", TRANSCRIPTS)
@pytest.mark.parametrize("name", [name for name in PROMPT_FIELDS if name not in SYSTEM_FIELDS])
def test_what_a_field_asks_beside_a_prompt_stands_in_it_or_is_refused(shape: str, name: str) -> None:
    """Fields that repeat the prompt are usual; `2` is not a word of `2+2?`."""
    row = good(SHAPES[shape])
    for repeated in ("2+2?", " 2+2?\n", [USER, FOUR], [["2+2?", "4"]], 3, ""):
        assert good(SHAPES[shape] | {name: repeated}) == row
    for more in ("3+3?", "2", [USER, FOUR | {"content": "6"}], [["3+3?", "6"]], {"text": "3+3?"}):
        found = bad(SHAPES[shape] | {name: more})
        assert found.reason == "unread prompt"
        assert f"a prompt is read, and {name!r} asks more" in found.detail
        assert good(SHAPES[shape] | {name: more}, columns={name: None}) == row


SYSTEMS: list[Any] = [
    "Be brief.",
    BE_BRIEF,
    [BE_BRIEF],
    ["Be brief."],
    {"content": "Be brief."},
    {"text": "Be brief."},
    {"from": "system", "value": "Be brief."},
    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
]


@pytest.mark.parametrize("name", SYSTEM_FIELDS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_turn_in_any_form_is_the_first(name: str, system: Any) -> None:
    asked = good({"prompt": [BE_BRIEF, USER], **TEXTS})
    shapes = ("explicit prompt, texts", "Skywork", "alpaca", "orca", "sharegpt ranking", "SHP", "PKU-SafeRLHF")
    for shape in shapes:
        row = good(SHAPES[shape] | {name: system})
        assert (row.prompt, row.chosen, row.rejected) == (asked.prompt, asked.chosen, asked.rejected)
    assert good({"prompt": [BE_BRIEF, USER], name: system, **TEXTS}) == asked
    other = bad({"prompt": [BE_BRIEF, USER], name: "Rhyme.", **TEXTS})
    assert f"columns={{{name}: null}}" in other.detail


def test_a_format_that_reads_another_prompt_refuses_a_second() -> None:
    for shape in ("SHP", "HelpSteer3", "NeMo RL", "ms-swift", "OpenAI"):
        row = bad(SHAPES[shape] | {"prompt": "3+3?"})
        assert row.reason == "unread prompt"
        assert "columns={prompt: null}" in row.detail
        assert good(SHAPES[shape] | {"prompt": "2+2?"}) == good(SHAPES[shape])


@pytest.mark.parametrize("shape", ["alpaca", "orca", "sharegpt ranking", "implicit prompt, texts"])
def test_a_field_that_says_nothing_is_no_prompt(shape: str) -> None:
    for name in ("query", "context", "messages", "dialogue", "system_prompt"):
        for value in ("", " ", [], {}, 3, False, None):
            assert good(SHAPES[shape] | {name: value}) == good(SHAPES[shape])


def test_a_second_prompt_field_is_never_dropped() -> None:
    raw = {"instruction": "Add.", "context": "2+2", **TEXTS}
    row = bad(raw)
    assert row.reason == "unread prompt"
    assert "'instruction', 'context'; columns={prompt: instruction, context: null} reads that one" in row.detail
    assert "columns={instruction: ..., input: ..., system: ...} joins several" in row.detail
    joined = (["user: Add.\n2+2"], *SUM[1:])
    assert turns(good(raw, columns={"input": "context"})) == joined
    assert "'context' asks more" in bad(raw, columns={"prompt": "instruction"}).detail
    assert turns(good(raw, columns={"prompt": "instruction", "context": None}))[0] == ["user: Add."]
    nested = {"question": "Add.", "context": {"text": "2+2"}, **TEXTS}
    assert turns(good(nested, columns={"instruction": "question", "input": "context.text"})) == joined
    assert bad({"question": "Add.", "input": "2+2", **TEXTS}).reason == "unread prompt"
    assert bad(SHAREGPT | {"instruction": "Add."}).reason == "unread prompt"


def test_columns_that_read_a_response_out_of_a_prompt_field_have_read_it() -> None:
    raw = {"messages": {"good": "4", "bad": "5"}}
    assert turns(good(raw, columns={"chosen": "messages.good", "rejected": "messages.bad"})) == ([], *SUM[1:])


def test_a_hidden_prompt_hides_what_stands_for_one() -> None:
    raw = {"instruction": "Repeat.", "chosen": "2+2?\n4", "rejected": "2+2?\n5"}
    assert turns(good(raw, columns={"prompt": None})) == SUM
    assert turns(good(raw, columns={"prompt": None, "instruction": "instruction"}))[0] == ["user: Repeat."]
    shp = SHAPES["SHP"]
    assert good(shp, columns={"prompt": None}) == good(shp)


def test_files_of_two_toolkits_in_one(tmp_path: Path) -> None:
    """A file's rows are told one by one; Parquet gives each the fields of all."""
    rows = [SHAPES[name] for name in ("alpaca", "orca", "ms-swift", "NeMo RL", "explicit prompt, texts")]
    fields = dict.fromkeys(name for row in rows for name in row)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(fields) | row for row in rows]), path)
    read = list(FileSource(path))
    assert not [row for row in read if isinstance(row, BadRow)]
    assert [turns(row) for row in read if isinstance(row, PairRow)] == [SUM] * len(rows)
