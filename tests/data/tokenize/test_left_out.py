"""What templates leave out is said; what they only write otherwise is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize.left_out import left_out
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.data.tokenize.policy import ARGUMENT_UNREAD
from tests.data.words import Rows, pair, turns, word_tokenizer

CALL: Any = {
    "role": "assistant",
    "content": "",
    "tool_calls": ({"function": {"name": "look", "arguments": {"up": ['a "b"', 3]}}},),
}


@pytest.mark.parametrize(
    ("message", "text", "missing"),
    [
        ({"role": "user", "content": " a  b "}, "<user>a b", ""),
        ({"role": "user", "content": "a b"}, "<user>a", "turn 0 (user)"),
        ({"role": "system", "content": "Be brief."}, "<user>", "turn 0 (system)"),
        ({"role": "assistant", "content": "<think>\na</think>b"}, "b", "turn 0 (assistant)"),
        ({"role": "assistant", "content": "<think>\na</think>b"}, "<think> a\n</think>\n\nb", ""),
        ({"role": "assistant", "content": "b", "reasoning_content": "a"}, "b", "turn 0 (assistant), reasoning_content"),
        ({"role": "assistant", "content": "b", "reasoning_content": "a", "name": "c"}, "<a>b", ""),
        ({"role": "tool", "content": 'he said "no"\n', "tool_call_id": "7"}, '{"he said \\"no\\"\\n"}', ""),
        (CALL, 'look {"up": ["a \\"b\\"", 3]}', ""),
        (CALL, "look", "turn 0 (assistant), tool_calls"),
        (
            {"role": "assistant", "content": "b", "reasoning_details": [{"text": "a"}]},
            "b",
            "turn 0 (assistant), reasoning_details",
        ),
    ],
)
def test_what_a_text_lacks(message: Message, text: str, missing: str) -> None:
    assert left_out(text, [message]) == missing


def test_definitions_of_tools_and_places() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}, {"name": "see"}]
    assert left_out("see look a", turns("a"), tools) == ""
    assert left_out("see a", turns("a"), tools) == "tool look"
    assert left_out("a", turns("a", "b"), first=3) == "turn 4 (assistant)"
    assert left_out("ba", turns("a", "b")) == ""  # some templates put the system turn before the last user's


def test_it_is_counted_with_its_row(tmp_path: Path) -> None:
    """A template that knows no system turn: the pair is kept, and the report says what was not shown."""
    template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }} {% endfor %}"
    begun: Message = {"role": "system", "content": "w9"}
    whole, cut = pair("w1", "w2", "w3"), replace(pair((begun, *turns("w1")), "w2", "w3"), origin="a.jsonl:7")
    report = prepare_pairs(Rows(whole, cut), word_tokenizer(template), TokenizePolicy(), tmp_path).report
    assert (report.kept, report.changes) == (2, {"text left out by the template": 1})
    assert report.examples["text left out by the template"] == ["a.jsonl:7: turn 0 (system)"]


def test_an_argument_that_no_template_reads_is_counted_with_its_row(tmp_path: Path) -> None:
    """What stands in a text or a comment of the template is not read; what is only asked about is."""
    asked = "{# loud #}quiet {% if soft is defined %}w9 {% endif %}"
    template = asked + "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    rows = [replace(pair("w1", "w2", "w3"), chat_template_kwargs={name: 1}) for name in ("loud", "quiet", "soft")]
    report = prepare_pairs(Rows(*rows), word_tokenizer(template), TokenizePolicy(), tmp_path).report
    assert (report.kept, report.changes) == (3, {ARGUMENT_UNREAD: 2})
    assert [found.partition(": ")[2] for found in report.examples[ARGUMENT_UNREAD]] == ["loud", "quiet"]
