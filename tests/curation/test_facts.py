"""What is looked at in rows: groups, a second label, benchmarks' prompts, topics; and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightning_rm.annotation.reviews import Verdict
from lightning_rm.curation.facts import collect_facts
from lightning_rm.curation.groups import OTHERS, group_rows, length_groups
from lightning_rm.curation.heart import by_heart
from lightning_rm.curation.reviewed import flip_rows
from lightning_rm.data.rows import BadRow
from lightning_rm.data.sources.contamination import Benchmarks
from tests.curation.test_conflicts import row, said

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]


def test_groups_and_a_second_label_are_fields_of_the_row() -> None:
    rows = [replace(row("q", "a b c", "d"), others={"annotator": "ada", "gpt": True}), row("q", "a", "b")]
    facts = collect_facts(
        [*rows, BadRow("f:3", "wrong type", "x")], ["source", "annotator", "sorce"], second_label="gpt"
    )
    assert facts.ungrouped[-1] == "sorce"
    assert facts.groups == {"subset": ["all", "all", ""], "annotator": ["ada", "", ""]}
    assert facts.words == [2, 0, 0]
    np.testing.assert_array_equal(facts.second_votes(), [1, np.nan, np.nan])
    assert facts.bad == ["", "", "wrong type: x"]


def test_a_second_label_of_a_pair_that_was_turned_round_is_turned_round() -> None:
    rows = [replace(row("q", "a", "b"), others={"gpt": said}) for said in (True, False, 0.25)]
    facts = collect_facts([*rows, *(one.exchanged() for one in rows)], second_label="gpt")
    np.testing.assert_array_equal(facts.second_votes(), [1, -1, -0.5, -1, 1, 0.5])


def test_a_second_label_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="second_label='gpt': no row has a field of that name"):
        collect_facts([row("q", "a", "b")], second_label="gpt")
    bad = replace(row("q", "a", "b"), others={"gpt": "yes"}, origin="f.jsonl:7")
    with pytest.raises(ValueError, match=r"f.jsonl:7: second_label='gpt' is 'yes'"):
        collect_facts([bad], second_label="gpt")


def test_thirteen_words_in_a_row_are_a_benchmarks(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Please: {' '.join(WORDS)}"},
        {
            "prompt": [
                {"role": "system", "content": "You are helpful " * 9},
                {"role": "user", "content": "Say a, b, c, d!"},
            ]
        },
    ]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    benchmarks = Benchmarks({"bench": tmp_path / "bench.jsonl"})
    asked = said("user", "And now ONE, two three four five six seven eight nine ten eleven twelve thirteen")
    assert benchmarks.holds(asked) == "bench"
    assert benchmarks.holds(said("user", " ".join(WORDS[:12]))) is None
    assert benchmarks.holds(said("user", "say A B C D")) == "bench"
    assert benchmarks.holds(said("user", "You are helpful " * 9)) is None
    system = (*said("system", " ".join(WORDS)), *said("user", "something else of five words"))
    facts = collect_facts(
        [replace(row("", "a", "b"), prompt=system), row(" ".join(WORDS), "a", "b")], benchmarks=benchmarks
    )
    assert facts.contaminated == ["", "bench"]


def test_a_benchmark_without_prompts_is_named(tmp_path: Path) -> None:
    (tmp_path / "bench.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"benchmarks.bench: no row of .* has a prompt"):
        Benchmarks({"bench": tmp_path / "bench.jsonl"})


def test_topics_are_told_apart_and_named() -> None:
    fruit = [f"name some fruit like apple and pear number {'i' * n}" for n in range(3, 33)]
    code = [f"write python code that sorts lists version {'v' * n}" for n in range(3, 33)]
    facts = collect_facts([row(prompt, "a", "b") for prompt in [*fruit, *code, ""]])
    names = facts.topics.clusters(num_clusters=2)
    assert len(set(names[:30])) == 1
    assert len(set(names[30:60])) == 1
    assert names[0] != names[30]
    assert names[60] == ""
    assert set(names[30].split()) <= set(code[0].split())
    assert names == facts.topics.clusters(num_clusters=2)


def test_groups_have_shares_and_intervals_and_the_worst_comes_first() -> None:
    mean = np.array([1.0, -1, 1, 1, -2, -2, np.nan, 1])
    group = ["a", "a", "a", "a", "b", "b", "b", ""]
    rows = group_rows(group, mean, np.zeros(8, bool))
    assert [(one["group"], one["pairs"], one["doubted"]) for one in rows] == [("b", 2, 1.0), ("a", 4, 0.25)]
    assert rows[1]["doubted, low"] == pytest.approx(0.0456, abs=1e-4)  # Wilson's of 1 in 4
    assert rows[1]["doubted, high"] == pytest.approx(0.6994, abs=1e-4)
    assert np.isnan(float(str(rows[0]["wrong"])))


def test_many_groups_stand_together() -> None:
    rows = group_rows([str(n) for n in range(40)], np.ones(40), np.ones(40, bool))
    assert len(rows) == 31
    assert sum(int(str(one["pairs"])) for one in rows) == 40
    assert OTHERS in {one["group"] for one in rows}


def test_pairs_without_a_group_are_not_among_the_others() -> None:
    """31 sources of three pairs, one pair without a source and one without votes: the others are one source."""
    names = [*(str(n % 31) for n in range(93)), "", "new"]
    rows = group_rows(names, np.array([1.0] * 94 + [np.nan]), np.ones(95, bool))
    assert [one["pairs"] for one in rows if one["group"] == OTHERS] == [3]
    assert len(rows) == 31


def test_length_groups() -> None:
    assert length_groups([-60, -50, 0, 49, 50]) == [
        "less than -50",
        "-50 to -10",
        "-10 to 10",
        "10 to 50",
        "50 or more",
    ]


@pytest.mark.parametrize(
    ("seen", "new", "told"),
    [
        (1.0, 0.6, "Cross-fitted voters are due"),
        (0.71, 0.68, "cross-fitting is not due"),
        (None, 0.7, "No voter was trained on a pair"),
        (0.9, None, "cannot be told. Hold some out"),
    ],
)
def test_voters_that_know_labels_by_heart(seen: float | None, new: float | None, told: str) -> None:
    parts = [np.where(np.arange(1000) < 1000 * share, 1.0, -1.0) for share in (seen, new) if share is not None]
    is_new = np.concatenate(
        [np.full(1000, known) for known, share in ((False, seen), (True, new)) if share is not None]
    )
    found = by_heart(np.concatenate(parts), is_new)
    assert told in found.advice()
    assert found.is_due == (seen == 1.0)


@pytest.mark.parametrize("new", [[1.0, -1, 1], [1.0, 1, 1]])
def test_few_new_pairs_do_not_tell_what_is_known_by_heart(new: list[float]) -> None:
    assert "too few" in by_heart(np.array([1.0] * 90 + new), np.arange(93) >= 90).advice()


def test_an_interval_of_the_gap_holds_it_where_new_pairs_are_few() -> None:
    """Eight new pairs: 95 in 100 intervals hold the gap of .2; normal ones of the shares as they are, 88."""
    rng = np.random.default_rng(0)
    found = [
        by_heart(np.where(rng.random(908) < np.repeat([0.95, 0.75], [900, 8]), 1.0, -1.0), np.arange(908) >= 900)
        for _ in range(400)
    ]
    assert 0.93 <= np.mean([one.low <= 0.2 <= one.high for one in found]) < 1


def test_fifty_reviews_tell_how_many_deciles_to_flip() -> None:
    """Ten of each decile of 1,000 pairs are reviewed: in the two weakest nine labels are wrong, elsewhere none."""
    quantile = np.arange(1000) / 1000
    ids = [str(place) for place in range(1000)]
    said: dict[str, Verdict] = {str(100 * decile + n): "keep" for decile in range(10) for n in range(10)}
    said |= {str(100 * decile + n): "flip" for decile in (0, 1) for n in range(9)}
    said["0"] = "tie"
    rows, told = flip_rows(quantile, ids, said)
    assert "share=0.2" in told
    assert (rows[0]["reviewed"], rows[0]["label wrong"], rows[9]["label wrong"]) == (10, 8, 0)
    assert rows[1]["a flip is right"] == 0.9
    assert flip_rows(quantile, ids, {"1": "flip", "2": "skip"}) == (
        [],
        "1 reviews: from 50 on they tell of the other pairs.",
    )
    assert "share=0," in flip_rows(quantile, ids, dict.fromkeys(said, "keep"))[1]
