"""The report adds up, survives JSON, and says what it counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_rm.data.store.report import DataReport


def report(name: str = "train") -> DataReport:
    made = DataReport(name, notes=["a default template"])
    made.leave_out("tie", "a.jsonl:1: label 0.5")
    for line in range(2, 7):
        made.leave_out("overlong", f"a.jsonl:{line}: {line} tokens")
    made.keep({"prompt cut": "", "text left out": "turn 1"}, "a.jsonl:7")
    made.keep({}, "a.jsonl:8", ["article", "source"])
    more = DataReport()
    more.keep({}, "a.jsonl:9", ["article"])
    made.add(more)
    return made


def test_counts_and_three_examples() -> None:
    made = report()
    assert (made.read, made.kept) == (9, 3)
    assert (made.reasons, made.changes) == ({"tie": 1, "overlong": 5}, {"prompt cut": 1, "text left out": 1})
    assert made.examples["overlong"] == [f"a.jsonl:{line}: {line} tokens" for line in (2, 3, 4)]


def test_json_round_trip() -> None:
    assert DataReport.from_json(report().to_json()) == report()


def test_examples_follow_their_file() -> None:
    moved = report().moved({"a.jsonl": "b/a.jsonl"})
    assert moved.examples["prompt cut"] == ["b/a.jsonl:7"]
    assert moved.examples["tie"] == ["b/a.jsonl:1: label 0.5"]
    assert (moved.reasons, moved.changes) == (report().reasons, report().changes)


def test_in_words() -> None:
    assert str(report()).splitlines() == [
        "train: 9 rows read, 3 kept",
        "  left out: tie 1 (a.jsonl:1: label 0.5)",
        "  left out: overlong 5 (a.jsonl:2: 2 tokens; a.jsonl:3: 3 tokens; a.jsonl:4: 4 tokens)",
        "  kept, but: prompt cut 1 (a.jsonl:7)",
        "  kept, but: text left out 1 (a.jsonl:7: turn 1)",
        "  a default template",
        "  fields that are not read, and the rows that have them: 'article' 2, 'source' 1",
    ]


@given(st.lists(st.sampled_from(["keep", "tie", "overlong", "broken JSON"])))
def test_read_is_kept_plus_left_out(rows: list[str]) -> None:
    made = DataReport()
    for row in rows:
        if row == "keep":
            made.keep({}, "")
        else:
            made.leave_out(row, "")
    assert made.read == len(rows) == made.kept + sum(made.reasons.values())
