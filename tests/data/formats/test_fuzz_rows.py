"""Malformed rows by the hundred: each gives its pair or its reason, none a traceback or a wrong result."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.data.formats.asked import PROMPT_FIELDS
from lightning_rm.data.formats.columns import PLAIN_FIELDS
from lightning_rm.data.formats.messages import is_blank
from lightning_rm.data.formats.pairs import parse_row
from lightning_rm.data.formats.published import FORMAT_FIELDS
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.digests import digest
from tests.data.formats.test_pairs import BAD, SHAPES

REASONS = {
    *("missing field", "wrong type", "bad value", "empty text", "bad encoding", "broken JSON", "unknown format"),
    *("unknown role", "wrong role", "prompt disagrees", "strength disagrees", "tie", "unread prompt"),
    *("not text", "several responses", "duplicate key", "too large", "prefill"),
}

texts = st.sampled_from(
    ["", " ", "a", "a\nb", "\n\nHuman: a\n\nAssistant: b", "Human:", "\n\nAssistant:", "\ud800", "1"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-4, 4)
    | st.just(10**400)
    | st.floats()
    | texts
    | st.just(b"a")
    | st.just("x" * 99)
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "robot", "function_call"]) | scalars,
        "content": texts | scalars,
        "from": st.sampled_from(["human", "gpt"]) | scalars,
        "value": texts | scalars,
        "tool_calls": scalars | st.lists(st.dictionaries(texts, scalars, max_size=1), max_size=1),
        "name": scalars,
        "reasoning_content": texts | scalars,
        "function_call": scalars | st.just({"name": "f", "arguments": "{}"}) | st.just({"arguments": "{"}),
    },
)
values = st.recursive(
    scalars | messages,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2) | st.lists(messages, max_size=3)
    ),
    max_leaves=6,
)
fields = st.sampled_from(sorted(PLAIN_FIELDS | FORMAT_FIELDS | set(PROMPT_FIELDS)))


def check(row: object) -> None:
    """A pair that every later stage can rely on, or a bad row that can be counted and printed."""
    if isinstance(row, BadRow):
        assert row.reason in REASONS, row
        assert row.origin == "here"
        row.detail.encode()
        return
    assert isinstance(row, PairRow)
    for side in (row.chosen, row.rejected):
        assert side[-1]["role"] == "assistant"
        assert not any(is_blank(turn) for turn in side)
    for turn in (*row.prompt, *row.chosen, *row.rejected):
        assert turn["role"] in ("user", "assistant", "system", "tool")
        turn["content"].encode()
    assert 0 <= row.label <= 1
    assert row.weight >= 0
    for number in (row.label, row.weight, row.margin, row.gold_margin, row.strength_mean, row.strength_std, *row.votes):
        assert number is None or (type(number) is float and math.isfinite(number) and abs(number) < 3.41e38)
    assert row.id.strip()
    assert row.prompt_id.strip()
    assert row.subset.strip()
    digest(
        [row.prompt, row.chosen, row.rejected, row.tools, row.chat_template_kwargs, row.id, row.prompt_id, row.subset]
    )


@given(st.dictionaries(fields, values, max_size=6))
@settings(max_examples=150)
def test_rows_of_any_fields(raw: dict[str, Any]) -> None:
    check(parse_row(raw, "here"))


@given(st.sampled_from(sorted(SHAPES)), st.dictionaries(fields, values, min_size=1, max_size=2))
@settings(max_examples=250)
def test_good_rows_with_one_or_two_fields_spoiled(shape: str, spoiled: dict[str, Any]) -> None:
    check(parse_row(SHAPES[shape] | spoiled, "here"))


@given(st.sampled_from(sorted(SHAPES)), st.data())
@settings(max_examples=100)
def test_good_rows_with_a_field_gone(shape: str, data: st.DataObject) -> None:
    raw = dict(SHAPES[shape])
    gone = data.draw(st.sampled_from(sorted(raw)))
    del raw[gone]
    row = parse_row(raw, "here")
    check(row)
    if gone in ("chosen", "rejected", "human_ref_A", "response1", "response_1", "better_response_id"):
        assert isinstance(row, BadRow)


@given(
    st.dictionaries(st.sampled_from(PROMPT_FIELDS), st.sampled_from(["", " ", "Which {}?", "{}?"]), max_size=4),
    st.sampled_from([("4", "5"), ("a\n4", "a\n5"), ([{"role": "assistant", "content": "4"}], "5")]),
)
@settings(max_examples=200)
def test_no_prompt_field_is_lost_unseen(asked: dict[str, str], responses: tuple[Any, Any]) -> None:
    asked = {name: text.format(name) for name, text in asked.items()}
    raw = asked | {"chosen": responses[0], "rejected": responses[1]}
    row = parse_row(raw, "here")
    check(row)
    if isinstance(row, PairRow):
        said = [line for turn in row.prompt for line in turn["content"].split("\n") if line != "a"]
        assert sorted(said) == sorted(text for text in asked.values() if text.strip())
    check(parse_row(raw, "here", columns={"prompt": None}))


@given(st.lists(st.binary(max_size=30).filter(lambda line: line.strip() != b"{"), max_size=8))
@settings(max_examples=100)
def test_files_of_any_bytes(tmp_path_factory: Any, chunks: list[bytes]) -> None:
    path: Path = tmp_path_factory.mktemp("fuzz") / "a.jsonl"
    path.write_bytes(b"\n".join(chunks))
    num_lines = sum(bool(line.strip()) for line in path.read_bytes().split(b"\n"))
    rows = list(FileSource(path))
    assert len(rows) == num_lines
    assert all(isinstance(row, BadRow) for row in rows)


def test_every_malformed_row_is_counted_once_in_a_file(tmp_path: Path) -> None:
    """The hand-made list of `test_pairs`, between good rows, as lines of one file."""
    good = SHAPES["explicit prompt, texts"]
    written: list[tuple[str, str | None]] = []
    for raw, reason in BAD:
        try:
            line = json.dumps(raw)  # a NaN costs the line before anybody looks at its field
            written.append((line, "bad value" if "NaN" in line or "Infinity" in line else reason))
        except TypeError:
            continue  # bytes, which JSON has none of
        written.append((json.dumps(good), None))
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(line for line, _ in written))
    rows = list(FileSource(path))
    assert [row.reason if isinstance(row, BadRow) else None for row in rows] == [reason for _, reason in written]
    assert [row.origin for row in rows if isinstance(row, BadRow)] == [
        f"{path}:{number}" for number, (_, reason) in enumerate(written, start=1) if reason
    ]
