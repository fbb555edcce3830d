"""Decisions of reviewers: what is written is read, what is cut off is not, and which one counts."""

import json
import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_rm.annotation.reviews import Review, append_review, read_reviews, standing, verdicts

DECISIONS = st.sampled_from(["keep", "flip", "tie", "skip", "undo"])
REVIEWS = st.builds(
    Review, st.sampled_from(["1", "2"]), DECISIONS, st.text(), st.sampled_from(["ada", "bob"]), st.just("")
)


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    reviews = [
        Review("1", "flip", "a\nline\u2028 and \x85", "ada", "2026-01-31T12:00:00Z"),
        Review("a b", "undo", "", "בוב", ""),
    ]
    for review in reviews:
        append_review(tmp_path / "reviews.jsonl", review)
    assert read_reviews(tmp_path / "reviews.jsonl") == reviews
    assert len((tmp_path / "reviews.jsonl").read_bytes().split(b"\n")) == 3


@given(st.lists(REVIEWS), st.integers(0, 200))
def test_a_crash_at_any_byte_loses_at_most_the_last_line(
    tmp_path_factory: pytest.TempPathFactory, reviews: list[Review], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.unlink(missing_ok=True)
    for review in [*reviews, Review("last", "keep")]:
        append_review(path, review)
    last = json.dumps({"pair_id": "last", "decision": "keep", "note": "", "reviewer": "", "time": ""}) + "\n"
    kept = min(cut, len(last) - 1)
    os.truncate(path, path.stat().st_size - len(last) + kept)
    whole = [Review("last", "keep")] if kept == len(last) - 1 else []  # cut off before its line break alone
    assert read_reviews(path) == [*reviews, *whole]
    append_review(path, Review("next", "tie"))
    assert read_reviews(path) == [*reviews, *whole, Review("next", "tie")]


def test_a_file_that_somebody_wrote_without_a_last_line_break_is_read_whole(tmp_path: Path) -> None:
    lines = ['{"pair_id": "1", "decision": "keep"}', '{"pair_id": "2", "decision": "flip"}']
    (tmp_path / "r.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert verdicts(read_reviews(tmp_path / "r.jsonl")) == {"1": "keep", "2": "flip"}


def test_a_copy_that_went_on_and_its_beginning_are_put_together(tmp_path: Path) -> None:
    """Ada flips two pairs, goes on with a copy of the file elsewhere, and takes one of them back there."""
    begun = [Review("1", "flip", reviewer="ada", time="12:00"), Review("2", "flip", reviewer="ada", time="12:01")]
    went_on = [*begun, Review("1", "undo", reviewer="ada", time="12:02")]
    for orders in ([begun, went_on], [went_on, begun]):
        (tmp_path / "both.jsonl").unlink(missing_ok=True)
        for review in chain.from_iterable(orders):
            append_review(tmp_path / "both.jsonl", review)
        assert read_reviews(tmp_path / "both.jsonl") == went_on
        assert verdicts(read_reviews(tmp_path / "both.jsonl")) == {"2": "flip"}


@given(st.lists(REVIEWS))
def test_the_last_line_of_a_reviewer_counts_and_undo_takes_it_back(reviews: list[Review]) -> None:
    expected: dict[str, dict[str, Review]] = {}
    for reviewer in {review.reviewer for review in reviews}:
        expected[reviewer] = {}
        for pair_id in ("1", "2"):
            own = [review for review in reviews if (review.reviewer, review.pair_id) == (reviewer, pair_id)]
            while any(review.decision == "undo" for review in own):
                at = next(place for place, review in enumerate(own) if review.decision == "undo")
                own = own[: max(at - 1, 0)] + own[at + 1 :]
            if own:
                expected[reviewer][pair_id] = own[-1]
    assert standing(reviews) == expected


@pytest.mark.parametrize(
    ("said", "together"),
    [
        (["flip"], "flip"),
        (["flip", "keep", "flip"], "flip"),
        (["flip", "keep"], "tie"),
        (["skip", "keep"], "keep"),
        (["skip", "skip"], "skip"),
        (["tie", "tie", "flip"], "tie"),
        (["undo"], None),
    ],
)
def test_most_reviewers_decide(said: list[Any], together: str | None) -> None:
    reviews = [Review("1", decision, reviewer=str(number)) for number, decision in enumerate(said)]
    assert verdicts(reviews).get("1") == together


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("keep 17", "r.jsonl:2: this is not a line of JSON"),
        ("[1]", "r.jsonl:2: a decision is an object"),
        ('{"pair_id": "1"}', "r.jsonl:2: field 'decision' is missing; found 'pair_id'"),
        ('{"pair_id": 1, "decision": "keep"}', "r.jsonl:2: field 'pair_id' is 1, not a string"),
        ('{"pair_id": "1", "decision": "yes"}', "r.jsonl:2: decision 'yes' is not one of keep, flip, tie, skip, undo"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, message: str) -> None:
    append_review(tmp_path / "r.jsonl", Review("1", "keep"))
    with (tmp_path / "r.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_reviews(tmp_path / "r.jsonl")
    with pytest.raises(ValueError, match="cannot be read"):
        read_reviews(tmp_path / "none.jsonl")
