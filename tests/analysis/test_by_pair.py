"""Two models on the same test pairs: by hand, against a naive bootstrap, and on a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_rm.analysis.by_pair import pair_difference
from lightning_rm.analysis.evidence import Records
from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.page.blocks import Cell, Table
from lightning_rm.analysis.report import report
from lightning_rm.analysis.sections.by_pair import by_pair_section
from lightning_rm.analysis.study import study_of
from lightning_rm.markup import escaped_markdown
from tests.analysis.made_runs import write_rewards, write_run
from tests.float64 import same


def records(margin: list[float], prompt: list[str], label: list[float] | None = None, first_row: int = 0) -> Records:
    num = len(margin)
    return Records(
        np.arange(first_row, first_row + num),
        prompt,
        ["all"] * num,
        np.array(margin),
        np.zeros(num),
        np.ones(num) if label is None else np.array(label),
        np.full(num, np.nan),
    )


def test_the_difference_counts_ties_a_half_and_leaves_out_labels_without_a_side() -> None:
    """Right: 1, 1/2, 1 (label 0), -; the reference's: 0, 1, 1, -. The mean of 1, -1/2, 0 is 1/6."""
    label, prompt = [1.0, 1.0, 0.0, 0.5], ["a", "a", "b", "c"]
    found = pair_difference([(records([2, 0, -1, 3], prompt, label), records([-2, 1, -3, -3], prompt, label))])
    assert found is not None
    assert found.accuracy.mean == same(1 / 6)
    assert (found.accuracy.num, found.num_prompts, found.num_left_out) == (3, 2, 0)


def test_seeds_on_one_test_set_are_averaged_pair_by_pair_and_worlds_stand_side_by_side() -> None:
    """Two seeds give pair 0 the differences 1 and 0, pair 1 twice 0; another world has a pair of its own, -1."""
    one = (records([1, 1], ["a", "b"]), records([-1, 1], ["a", "b"]))
    two = (records([1, 1], ["a", "b"]), records([1, 1], ["a", "b"]))
    other = (records([-1], ["z"]), records([1], ["z"]))
    found = pair_difference([one, two, other])
    assert found is not None
    assert found.accuracy.mean == same((0.5 + 0 - 1) / 3)
    assert found.num_prompts == 3


def test_only_pairs_of_one_row_prompt_and_label_are_compared() -> None:
    there = records([1, 1, 1], ["a", "b", "c"], [1, 1, 1])
    reference = records([-1, -1, 1], ["a", "other", "c"], [1, 1, 0])
    found = pair_difference([(there, reference)])
    assert found is not None
    assert (found.accuracy.mean, found.accuracy.num, found.num_left_out) == (1, 1, 4)
    assert pair_difference([(there, records([1, 1, 1], ["x", "y", "z"]))]) is None


def test_the_interval_is_of_draws_of_prompts_with_all_their_pairs() -> None:
    rng = np.random.default_rng(7)
    prompt = [f"{number:02}" for number in rng.integers(12, size=40)]
    there, reference = rng.normal(0.5, 1, 40), rng.normal(0.2, 1, 40)
    found = pair_difference([(records(there.tolist(), prompt), records(reference.tolist(), prompt))], 300, seed=3)
    assert found is not None
    difference = (there > 0).astype(float) - (reference > 0)
    names = sorted(set(prompt))
    rows = [[row for row, name in enumerate(prompt) if name == wanted] for wanted in names]
    draws = np.random.default_rng(3).integers(len(names), size=(300, len(names)))
    means = [difference[[row for name in draw for row in rows[name]]].mean() for draw in draws]
    assert [found.accuracy.low, found.accuracy.high] == same(np.quantile(means, [0.025, 0.975]).tolist())


def test_models_that_judge_alike_have_no_interval() -> None:
    found = pair_difference([(records([1, 2, -1], ["a", "b", "c"]), records([3, 1, -4], ["a", "b", "c"]))])
    assert found is not None
    assert (found.accuracy.text, found.accuracy.verdict) == ("+0.000", "cannot be told")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One run a method: `sure` has 30 pairs right of which `baseline` has 15; `twin` judges as the baseline does."""
    for name, margin in {"baseline": [1, -1] * 15, "sure": [1] * 30, "twin": [2, -3] * 15}.items():
        write_run(tmp_path / name, name, 0, {}, test={"accuracy": float(np.mean(np.array(margin) > 0))})
        write_rewards(tmp_path / name, "test_test", margin)
    return tmp_path


def test_one_run_a_method_is_compared_pair_by_pair(runs: Path) -> None:
    section = by_pair_section(study_of(find_runs("runs", f"{runs}/*")))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    told = {cell.text if isinstance(cell := row["verdict"], Cell) else cell for row in table.rows}
    assert told == {"higher", "cannot be told"}
    assert section.lead.startswith("Accuracy against baseline: sure is higher on test by +0.500 [+0.")
    assert section.lead.endswith("No other difference can be told from zero.")
    page, *_ = report(f"{runs}/*", runs / "report.html")
    assert escaped_markdown(section.lead) in page.with_suffix(".md").read_text()


def test_test_sets_that_differ_are_not_compared(runs: Path) -> None:
    file = runs / "sure" / "pairs" / "test_test.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("prompt_id", pa.array([f"other {row}" for row in range(30)])), file)
    section = by_pair_section(study_of(find_runs("runs", f"{runs}/*")))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [row["method"] for row in table.rows] == ["twin"]
