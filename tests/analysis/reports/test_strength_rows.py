from __future__ import annotations

import csv
import html
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lightning_rm.analysis.detection import detection
from lightning_rm.analysis.reports.strength_rows import detection_rows, example_rows, group_rows
from lightning_rm.analysis.strength import grouped
from lightning_rm.analysis.table_files import write_table


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def read_markdown(path: Path) -> list[list[str]]:
    """The cells of the table, the rule under the headings left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")] for line in lines]
    return [[html.unescape(cell.replace("\0", "|")) for cell in row] for row in [cells[0], *cells[2:]]]


def message(content: str, role: str = "assistant") -> dict[str, str]:
    return {"role": role, "content": content}


def pairs(mean: list[float | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "prompt": [message("first", "user"), message("well"), message(f"question {i}", "user"), message("hm")],
                "chosen": [message(f"good {i}")],
                "rejected": [message(f"bad\n {i}"), message("twice", "user")],
                "strength_mean": value,
                "strength_std": 0.5,
            }
            for i, value in enumerate(mean)
        ]
    )


def test_both_files_hold_the_same_cells(tmp_path: Path) -> None:
    rows = [
        {"name": "a | b, <c>", "value": 0.123456, "count": 12000},
        {"name": None, "value": nan, "count": np.int64(3), "more": True},
        {"name": "é", "value": np.float64(-5.8612), "count": 1, "more": False},
    ]
    expected = [
        ["name", "value", "count", "more"],
        ["a | b, <c>", "0.1235", "12000", ""],
        ["", "", "3", "True"],
        ["é", "-5.861", "1", "False"],
    ]
    files = write_table(rows, tmp_path / "new" / "v1.2", "Some numbers")
    assert [path.name for path in files] == ["v1.2.csv", "v1.2.md"]
    assert read_csv(files[0]) == expected
    assert read_markdown(files[1]) == expected
    text = files[1].read_text(encoding="utf-8")
    assert text.startswith("# Some numbers\n\n| name | value | count | more |\n| --- | ---: | ---: | --- |\n")


@pytest.mark.parametrize(
    ("value", "cell"), [(0.0, "0.0000"), (0.00271, "0.0027"), (1e-5, "1e-05"), (1234.5678, "1234.568"), (-inf, "-inf")]
)
def test_numbers_keep_three_or_four_digits(tmp_path: Path, value: float, cell: str) -> None:
    assert read_csv(write_table([{"value": value}], tmp_path / "table", "t")[0])[1] == [cell]


def test_lines_of_text_stay_in_their_cell(tmp_path: Path) -> None:
    data, text = write_table([{"text": "one\ntwo"}], tmp_path / "table", "t")
    assert read_csv(data)[1] == ["one\ntwo"]
    assert read_markdown(text)[1] == ["one two"]


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rows to write"):
        write_table([], tmp_path / "table", "t")


def test_examples_are_the_weakest_those_nearest_zero_and_the_strongest() -> None:
    rows = example_rows(pairs([3.0, -0.1, None, -4.0, 0.2, 5.0, -2.0]), num=2)
    assert [(row["pairs"], row["mean"]) for row in rows] == [
        ("weakest", -4.0),
        ("weakest", -2.0),
        ("nearest 0", -0.1),
        ("nearest 0", 0.2),
        ("strongest", 5.0),
        ("strongest", 3.0),
    ]
    assert rows[0] == {
        "pairs": "weakest",
        "mean": -4.0,
        "std": 0.5,
        "prompt": "question 3",
        "chosen": "good 3",
        "rejected": "bad 3 twice",
    }


def test_long_texts_are_cut_and_a_prompt_may_be_empty() -> None:
    table = pa.Table.from_pylist(
        [
            {
                "prompt": [],
                "chosen": [message("x" * 201)],
                "rejected": [message("y" * 200)],
                "strength_mean": 1.0,
                "strength_std": 0.5,
            }
        ]
    )
    row = example_rows(table, num=1)[0]
    assert row["prompt"] == ""
    assert row["chosen"] == "x" * 199 + "…"
    assert row["rejected"] == "y" * 200


@pytest.mark.parametrize("num", [0, 3])
def test_more_examples_than_pairs_are_refused(num: int) -> None:
    with pytest.raises(ValueError, match=f"{num} examples of each kind from 2 pairs"):
        example_rows(pairs([1.0, None, 2.0]), num=num)


def test_groups_have_a_row_each(tmp_path: Path) -> None:
    rows = group_rows(grouped([1, -1, 2, -2], [1, 2, 3, 4], [1, 0, nan, nan], num_groups=2))
    files = write_table(rows, tmp_path / "groups", "Groups")
    assert read_csv(files[0]) == read_markdown(files[1])
    assert read_csv(files[0]) == [
        ["group (%)", "pairs", "mean", "std", "label right", "gold margin"],
        ["0 to 50", "2", "-1.500", "3.000", "0.0000", ""],
        ["50 to 100", "2", "1.500", "2.000", "1.000", ""],
    ]


def test_detection_has_a_row_a_score() -> None:
    found = detection([-2, -1, 1, 2], [1, 0, 1, 0], cut=0.5)
    (row,) = detection_rows({"mean": found})
    assert row["score"] == "mean"
    assert list(row.values())[1:] == list(found)


def test_texts_of_pairs_are_no_markup_in_a_table(tmp_path: Path) -> None:
    """`\\|` ended a cell in its middle, and an image of somebody else's was loaded."""
    _, text = write_table([{"prompt": "a\\|b ![x](http://y.z/x.png)", "n": 1}], tmp_path / "examples", "by *a*")
    assert text.read_text() == (
        "# by \\*a\\*\n\n| prompt | n |\n| --- | ---: |\n| a\\\\\\|b \\!\\[x\\](http\\://y.z/x.png) | 1 |\n"
    )


def test_a_prompt_may_be_missing_or_say_nothing() -> None:
    """As in files of others: TRL's implicit prompts stand in the responses, and a turn may be a call alone."""
    turns = [{"role": "user", "content": "q"}, {"role": "user", "content": None}]
    kinds = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    columns: dict[str, Any] = {
        "strength_mean": [1.0, 2.0],
        "strength_std": [0.0, 0.0],
        "prompt": pa.array([None, turns], kinds),
    }
    table = pa.table({**columns, "chosen": ["a", "b"], "rejected": ["c", "d"]})
    assert {row["prompt"] for row in example_rows(table, num=2)} == {""}
