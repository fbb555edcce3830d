"""The report on made runs: its numbers, what it says of what is missing, and a browser that opens it."""

from __future__ import annotations

import json
import re
import statistics
from math import inf, isinf, nan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_rm.analysis.evidence import evidence_of
from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.page.blocks import Page, Section
from lightning_rm.analysis.page.html import render_html
from lightning_rm.analysis.report import report
from lightning_rm.analysis.sections.benchmarks import benchmarks_section
from lightning_rm.analysis.sections.results import results_section
from lightning_rm.analysis.study import study_of
from lightning_rm.commands import report as commands_report
from lightning_rm.commands.report import report as command
from lightning_rm.evaluation.evaluation import Evaluation
from lightning_rm.evaluation.measure import Comparison, Figure, Row
from lightning_rm.evaluation.result import BenchmarkResult, ModelResult
from lightning_rm.evaluation.statistics import McNemar
from lightning_rm.markup import escaped
from tests.analysis.made_runs import write_curves, write_rewards, write_run
from tests.analysis.page.test_render import HOSTILE, Elements
from tests.browser import browser, chromium
from tests.commands.test_conf import composed

ACCURACY = {"baseline": [0.60, 0.62, 0.64], "better": [0.70, 0.73, 0.74], "same": [0.60, 0.65, 0.61]}
WORDS = [{"prompt": text, "chosen": text, "rejected": text} for text in HOSTILE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods of three seeds each, one of them with nothing but results; and a run that has not ended."""
    root = tmp_path_factory.mktemp("runs")
    for name, values in ACCURACY.items():
        for seed, value in enumerate(values):
            run = root / name / str(seed)
            sets = {"test": {"accuracy": value, "easy/accuracy": value + 0.1}, "test__ood": {"accuracy": value - 0.1}}
            write_run(run, name, seed, {"beta": len(name)}, train={"accuracy": 0.9}, val={"accuracy": value}, **sets)
            if name == "same":
                continue
            points = [(step, 0.5 + step / 100) for step in range(4)]
            write_curves(run, {"train/loss": points, "val/accuracy": [(3, value)]})
            scale = 4.0 if name == "better" else 1.0
            margin = [scale * (place - 3 + seed / 10) for place in range(len(HOSTILE))]
            write_rewards(run, "test_test", margin, WORDS)
            write_rewards(run, "val_val", margin)
    write_run(root / "same" / "stopped", "same", 7, {"beta": 4})
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return report(f"{folder}/*/*", folder / "out" / "report.html")[0]


def cells(html: str) -> list[list[str]]:
    """The words of every row of every table."""
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    return [
        [re.sub(r"<small.*?>", " | ", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows
    ]


def plain(row: list[str]) -> list[str]:
    return [re.sub("<.*?>", "", cell) for cell in row]


def test_methods_by_sets_have_mean_spread_and_the_paired_interval(page: Path) -> None:
    """better less baseline: .10, .11, .10; mean .1033, spread .0058, t(2) = 4.3027: .0890 to .1177."""
    rows = [plain(row) for row in cells(page.read_text())]
    mean, spread = statistics.mean(ACCURACY["baseline"]), statistics.stdev(ACCURACY["baseline"])
    assert ["baseline | reference", "3", f"{mean:.3f} ± {spread:.3f}", f"{mean - 0.1:.3f} ± {spread:.3f}"] in rows
    (better,) = [row for row in rows if row[:2] == ["better", "3"] and len(row) == 4]
    assert better[2] == "0.723 ± 0.021 | +0.103 [+0.089, +0.118]"
    (same,) = [row for row in rows if row[:2] == ["same", "4"]]
    assert same[2].startswith("0.620 ± 0.026 | 1 of 4 runs have no value. +0.000 [")


def test_every_difference_says_how_many_runs_it_would_take(page: Path) -> None:
    """same less baseline: 0, .03, -.03; spread .03: t(11) * .03 / sqrt(12) = .0191 is the first below .02."""
    rows = [plain(row) for row in cells(page.read_text())]
    assert ["better", "test", "3", "+0.103", "[+0.089, +0.118]", "0.001", "better", "3"] in rows
    (same,) = [row for row in rows if row[:2] == ["same", "test"] and len(row) == 8]
    assert same[2:4] == ["3", "+0.000"]
    assert same[5:] == ["1.000", "cannot be told", "12"]


def test_the_lead_tells_what_can_be_told(page: Path) -> None:
    text = page.read_text()
    assert "Against baseline: better is better on test by 0.103 ([+0.089, +0.118], 3 pairs of runs)" in text
    assert "No other difference can be told from zero." in text
    assert "same is" not in text


def test_nll_is_compared_after_a_temperature(page: Path) -> None:
    """Rewards four times as large are the same after it: the temperature takes the scale away."""
    rows = {row[0]: row for row in map(plain, cells(page.read_text())) if len(row) == 6 and row[1] == "test"}
    assert "same" not in rows
    baseline, better = rows["baseline"], rows["better"]
    assert float(better[4].split()[0]) == pytest.approx(4 * float(baseline[4].split()[0]), abs=0.03)
    assert better[3] != baseline[3]
    assert better[5].startswith(baseline[5])
    assert "+0.000" in better[5] or "−0.000" in better[5]


def test_what_is_missing_is_said(page: Path) -> None:
    text = page.read_text()
    assert "4 of 10 runs have no curves" in text
    assert "4 of 10 runs lack something." in text
    assert "no results.json: the run has not ended" in text
    assert "No evaluation was named or lies in the runs" in text


def test_settings_that_differ_are_named(page: Path) -> None:
    assert ["beta", "8", "6", "4"] in [plain(row) for row in cells(page.read_text())]


def test_pairs_to_read_are_the_worst_and_their_text_is_shown(page: Path) -> None:
    """Margins rise with the row, so that the first five are the worst; the methods agree on them."""
    text = page.read_text()
    assert re.findall(r"test, pair id (\d+)", text) == ["0", "1", "2", "3", "4"]
    assert all(text.count(escaped(pair["chosen"])) >= 3 for pair in WORDS[:5])
    assert "<li>better: margin −11.60, 3 of 3 runs prefer rejected</li>" in text


def test_hostile_pairs_are_text(page: Path, folder: Path) -> None:
    found = Elements(page.read_text())
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]


def test_markdown_says_the_same_and_its_figures_lie_beside_it(page: Path) -> None:
    text = page.with_suffix(".md").read_text()
    assert "| better | 3 | 0.723 ± 0.021 (+0.103 \\[+0.089, +0.118\\]) |" in text
    named = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(named) == len(set(named)) >= 7
    assert all((page.parent / name).read_bytes().startswith(b"\x89PNG") for name in named)


def test_the_command_writes_the_same_bytes_shows_the_results_and_says_where(
    page: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    globs = ",".join(f"{folder}/{name}/*" for name in ACCURACY)
    command(composed(f"runs=[{globs}]", f"out={tmp_path}/report.html", command="report"))
    names = ("report.html", "report.md", "report_figures")
    *said, one, two, three = (line.strip() for line in capsys.readouterr().out.splitlines())
    assert [one, two, three] == [f"{tmp_path}/{name}" for name in names]
    told = " ".join(" ".join(said).split())
    assert "better 3 0.723 ± 0.021" in told
    assert "[+0.089, +0.118]" in told.partition("Against")[0]
    assert "Against baseline: better is better on test by 0.103 ([+0.089, +0.118]" in told
    for name in names[:2]:
        assert (tmp_path / name).read_bytes() == (page.parent / name).read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_the_command_shows_what_compares_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = [Section(name, [], f"said of {name}", compares=name in "bd") for name in "abcd"]
    monkeypatch.setattr(commands_report, "report_page", lambda **told: Page("page", "", sections))
    command(composed("runs=runs", f"out={tmp_path}/report.html", command="report"))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("said")]
    assert told == ["said of b", "said of d"]


def test_methods_called_as_headings_are_do_not_stand_in_their_place(tmp_path: Path) -> None:
    for beta, name in enumerate(("setting", "subset")):
        write_run(tmp_path / name, name, 0, {"beta": beta}, test={"accuracy": 0.5, "easy/accuracy": 0.3 + beta / 10})
    text = report(f"{tmp_path}/*", tmp_path / "r.html")[1].read_text()
    assert "| subset (2) | setting | subset |\n| --- | ---: | ---: |\n| easy | 0.300 | 0.400 |" in text
    assert "| setting (2) | setting | subset |\n| --- | --- | --- |\n| beta | 0 | 1 |" in text


def test_another_method_is_the_reference_where_it_is_asked_for(folder: Path) -> None:
    study = study_of(find_runs("runs", [f"{folder}/baseline/*", f"{folder}/better/*"]), "better")
    assert results_section(study).lead.startswith(
        "Against better: baseline is worse on test by 0.103 ([−0.118, −0.089]"
    )


def test_a_name_that_settings_split_is_told_by_all_its_parts(tmp_path: Path) -> None:
    """Others were named, which are spelled more alike than `baseline beta=1` is."""
    for beta in (1, 2):
        write_run(tmp_path / f"b{beta}", "baseline", 0, {"beta": beta}, test={"accuracy": 0.6})
    for name in ("basel", "aseline", "bline", "line"):
        write_run(tmp_path / name, name, 0, {"beta": 1}, test={"accuracy": 0.6})
    with pytest.raises(ValueError, match=r"; among them are baseline beta=1, baseline beta=2$"):
        study_of(find_runs("runs", [f"{tmp_path}/*"]), "baseline")


def test_methods_that_share_no_set_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "a", 0, {"beta": 1}, test={"accuracy": 0.6})
    write_run(tmp_path / "b", "b", 0, {"beta": 2}, test__ood={"accuracy": 0.7})
    lead = results_section(study_of(find_runs("runs", [f"{tmp_path}/*"]), "a")).lead
    assert lead == (
        "No method was measured on a data set, world and seed that a was measured on too: nothing can be compared."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "betr"}, "reference='betr' is not a method of these; among them are better"),
        ({"metrics": ["f1"]}, "metrics: no run has a result 'f1'; take one of accuracy"),
        ({"benchmarks": "nowhere/*"}, "benchmarks='nowhere/\\*' names no evaluation"),
        ({"out": "page.pdf"}, "out='page.pdf' is not a page"),
        ({"num_worst": -1}, "num_worst=-1: give a number of pairs, 0 for none"),
    ],
)
def test_mistakes_are_named(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report(f"{folder}/*/*", **{"out": "x.html", **options})  # pyright: ignore[reportArgumentType]


def test_runs_that_left_nothing_make_a_page_that_says_so(tmp_path: Path) -> None:
    """One unreadable file costs itself alone."""
    write_run(tmp_path / "a", "a", 0, {})
    write_run(tmp_path / "b", "a", 1, {}, val={"accuracy": 0.5})
    (tmp_path / "b" / "results.json").write_text("{")
    write_rewards(tmp_path / "b", "val_val", [float("nan"), 1.0])
    text = report(f"{tmp_path}/?", tmp_path / "report.html")[0].read_text()
    assert "No run has come to its end: no results." in text
    assert "results.json cannot be read: it is not JSON: Expecting property name" in text
    assert "No run has logged a curve" in text


def test_text_is_compared_by_loss_and_perplexity_and_scores_by_ranks(tmp_path: Path) -> None:
    """Of which less is better, and more. sft less long: .2, .1, .3; mean .2, spread .1, t(2) = 4.3027: ± .248."""
    for name, losses in {"baseline": [1.0, 1.0, 1.0], "long": [0.8, 0.9, 0.7]}.items():
        for seed, loss in enumerate(losses):
            text = {"loss": loss, "perplexity": loss + 1, "num_tokens": 9.0}
            write_run(tmp_path / name / str(seed), name, seed, {}, val={"loss": 3.0}, test=text)
    write_curves(tmp_path / "long/0", {"val/loss": [(1, 0.9), (2, 0.8)], "val/perplexity": [(1, 2.5), (2, 2.2)]})
    written = report(f"{tmp_path}/*/*", tmp_path / "report.html")
    found = written[1].read_text()
    assert "In loss, no difference from baseline can be told from zero." in found
    assert "| long | 3 | 0.800 ± 0.100 (−0.200 \\[−0.448, +0.048\\]) |" in found
    assert "| long | 3 | 1.800 ± 0.100 (−0.200 \\[−0.448, +0.048\\]) |" in found
    assert {"curves_val_loss.png", "curves_val_perplexity.png"} <= {path.name for path in written}
    for name, correlations in {"plain": [0.5, 0.51], "better": [0.699, 0.711]}.items():
        for seed, correlation in enumerate(correlations):
            scores = {"score_rank_correlation": correlation, "num_scores": 9.0}
            write_run(tmp_path / "scored" / f"{name}{seed}", name, seed, {}, test=scores)
    found = report(f"{tmp_path}/scored/*", tmp_path / "report.html", reference="plain")[1].read_text()
    assert "Against plain: better is better on test by 0.200" in found


def test_diverged_runs_are_named_and_their_numbers_are_in_no_mean(tmp_path: Path) -> None:
    """Of b two runs of three have numbers: .6 and .8; the third has an infinite perplexity and rewards that are NaN."""
    for name in "ab":
        for seed, value in enumerate((0.6, 0.8, inf if name == "b" else 0.7)):
            run = tmp_path / f"{name}{seed}"
            write_run(run, name, seed, {}, test={"perplexity": value})
            write_rewards(run, "test_test", [1.0, 2.0, nan if isinf(value) else -0.5], WORDS[:3])
            write_rewards(run, "val_val", [1.0, 2.0, -0.5])
    text = report(f"{tmp_path}/*", tmp_path / "r.html")[1].read_text()
    assert "| b | 3 | 0.700 ± 0.141 (1 of 3 runs have no value. +0.000" in text
    assert (
        "| b | 2 | its rewards of test are not finite: no reliability, no temperature, no worst pairs of it |" in text
    )
    assert "1 of 6 runs lacks something" in text
    assert "nan" not in text
    assert "inf " not in text


def test_rewards_worse_than_chance_have_no_temperature(tmp_path: Path) -> None:
    """It was the bound of the fit, 1000. Margins 1, 2 and -1 of seed 0 are the reference's: T = 1.32."""
    for name in "ab":
        for seed in range(2):
            write_run(tmp_path / f"{name}{seed}", name, seed, {}, test={"accuracy": 0.5})
            write_rewards(tmp_path / f"{name}{seed}", "test_test", [1.0, 2.0, -3.0, 4.0])
            margins = [-1.0, -2.0, -1.0] if name == "b" and seed else [1.0, 2.0, 0.5 if seed else -1.0]
            write_rewards(tmp_path / f"{name}{seed}", "val_val", margins)
    text = report(f"{tmp_path}/*", tmp_path / "r.html")[1].read_text()
    (a,), (b,) = (re.findall(rf"\| {name} \| test \| 2 \| .*±.* \|", text) for name in "ab")
    assert "| 1.32 (1 run without: all right) | 0.750 |" in a
    assert "| 1.32 (1 run without: no better than chance) | 0.750 (+0.000) |" in b
    assert "1000" not in text


@pytest.mark.parametrize(
    ("columns", "what"),
    [({"label": [1.0, None]}, "a pair has no label"), ({"row": [], "label": []}, "it has no pairs")],
)
def test_rewards_that_tell_nothing_cost_themselves_alone(
    tmp_path: Path, columns: dict[str, list[float | None]], what: str
) -> None:
    write_run(tmp_path / "a", "a", 0, {}, test={"accuracy": 0.5})
    num = len(columns["label"])
    told = {"row": [0, 1], "chosen": [1.0, 2.0], "rejected": [0.0, 0.0], "clean": [1.0, 1.0]}
    table = {name: values[:num] for name, values in told.items()} | columns | {"subset": ["all"] * num}
    (tmp_path / "a" / "pairs").mkdir()
    pq.write_table(pa.table(table), tmp_path / "a" / "pairs" / "test_test.parquet")
    text = report(f"{tmp_path}/a", tmp_path / "r.html")[1].read_text()
    assert f"pairs/test_test.parquet cannot be read: {what}" in text


@pytest.mark.parametrize("held", ['{"test": 0.5}', '{"test": {"accuracy": "high"}}'])
def test_results_of_another_kind_cost_themselves_alone(tmp_path: Path, held: str) -> None:
    write_run(tmp_path / "a", "a", 0, {}, test={"accuracy": 0.5})
    (tmp_path / "a" / "results.json").write_text(held)
    text = report(f"{tmp_path}/a", tmp_path / "report.html")[0].read_text()
    assert "results.json cannot be read: it has something else than metrics of numbers for" in text


def test_a_text_of_somebody_else_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"would replace '.*README.md', which is not of a report"):
        report(f"{folder}/*/*", tmp_path / "README.html")
    assert (tmp_path / "README.md").read_text() == "mine"


def test_runs_that_held_nothing_out_have_ended_all_the_same(tmp_path: Path) -> None:
    run = tmp_path / "a"
    run.mkdir()
    (run / "config.yaml").write_text("name: vote\nseed: 0\n")
    (run / "results.json").write_text('{"train": {"accuracy": 0.9, "num_pairs": 60}}')
    _, text, *_ = report(run, tmp_path / "r.html")
    assert "The runs measured no test set and no validation set" in text.read_text()


def test_without_a_test_set_validation_stands_in_and_it_is_said(tmp_path: Path) -> None:
    for name in "ab":
        write_run(tmp_path / name, name, 0, {}, val={"accuracy": 0.5})
    text = report(f"{tmp_path}/?", tmp_path / "report.html")[0].read_text()
    assert "No run has a test set. These are validation sets" in text
    assert "one pair tells nothing" in text


def test_every_validation_set_has_its_curve(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "a", 0, {}, test={"accuracy": 0.5})
    write_curves(tmp_path / "a", {"train/loss": [(1, 0.7), (2, 0.6)], "val/x/nll": [(2, 0.6)], "val/y/nll": [(2, 0.7)]})
    text = report(tmp_path / "a", tmp_path / "r.html")[1].read_text()
    assert re.findall(r"!\[(V[^]]*)\]", text) == ["Validation NLL on val/x", "Validation NLL on val/y"]


def test_runs_on_pairs_that_are_gone_or_on_parts_of_them_that_have_no_accuracy(tmp_path: Path) -> None:
    settings = {"data": {"file": "/gone/strength.parquet"}, "treatment": {"decile": {"number": 0}}}
    write_run(tmp_path / "a", "a", 0, settings, test={"difference": 0.5})
    text = report(tmp_path / "a", tmp_path / "r.html")[1].read_text()
    assert "Not there any more: /gone/strength.parquet, on which runs were trained" in text
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").write_text("name: b\nseed: 0\ntreatment: {decile: 3}\n")
    with pytest.raises(ValueError, match=r"b/config\.yaml has a treatment that is not options by name"):
        report(tmp_path / "b", tmp_path / "r.html")


def test_responses_by_themselves_are_no_pairs_of_a_page(tmp_path: Path) -> None:
    """Two of the validation's five rows, and all of the test's: margins of 0 with the label 1/2 told of calibration."""
    write_run(tmp_path / "a", "a", 0, {}, test={"score_rank_correlation": 0.5, "num_scores": 2.0})
    rows = {"val_val": ([1.0, -1.0, 2.0, 5.0, 6.0], [0.0, 0.0, 0.0, 5.0, 6.0]), "test_test": ([5.0, 6.0], [5.0, 6.0])}
    (tmp_path / "a" / "pairs").mkdir()
    for stem, (chosen, rejected) in rows.items():
        num = len(chosen)
        columns = {"row": range(num), "subset": ["all"] * num, "chosen": chosen, "rejected": rejected}
        columns |= {"label": [1.0] * (num - 2) + [0.5] * 2, "clean": [float("nan")] * num}
        pq.write_table(pa.table(columns), tmp_path / "a" / "pairs" / f"{stem}.parquet")
    (run,) = find_runs("runs", str(tmp_path / "a"))
    found = evidence_of(run)
    assert found.records.keys() == {"val"}
    assert found.records["val"].margin.tolist() == [1.0, -1.0, 2.0]
    assert "2 rows of val have one response, and are no pairs" in found.lacks
    told = "2 rows of test have one response, and are no pairs: no reliability, no temperature, no worst pairs of it"
    assert told in found.lacks


def test_a_label_that_prefers_rejected_may_be_right(tmp_path: Path) -> None:
    """`clean` says which response is better: with the label 0 and clean 0 the label is right."""
    write_run(tmp_path / "a", "a", 0, {}, test={"accuracy": 0.5})
    write_rewards(tmp_path / "a", "test_test", [4.0, 3.0, 2.0], WORDS[:3])
    file = tmp_path / "a" / "pairs" / "test_test.parquet"
    table = pq.read_table(file).to_pydict() | {"label": [0.0, 0.0, 0.5], "clean": [0.0, 1.0, 1.0]}
    pq.write_table(pa.table(table), file)
    text = report(tmp_path / "a", tmp_path / "r.html")[1].read_text()
    assert re.findall("### test, pair (.*)", text) == [
        "id 0: label 0.00, the label is right",
        "id 1: label 0.00, the label is known to be wrong",
        "id 2: label 0.50",
    ]


def evaluation(folder: Path, models: dict[str, float], num_items: int = 1327) -> None:
    """What `lightning-rm evaluate` writes."""

    def row(value: float) -> Row:
        return Row({"overall": Figure(value, value - 0.05, value + 0.05), "chat": Figure(value, nan, nan)})

    names = list(models)
    pairs = [Comparison(names[0], names[1], row(0.08).sections, McNemar(3, 8, 0.02), 0.023)] if len(names) > 1 else []
    results = {name: ModelResult(row(value)) for name, value in models.items()}
    controls = {"random rewards": row(0.5)}
    result = BenchmarkResult("rm_bench", "RM-Bench", "the mean", num_items, [], results, controls, pairs)
    Evaluation({"rm_bench": result}, {"lost": "no such folder"}).write(folder)


def test_benchmarks_are_read_from_evaluations_and_a_broken_one_is_named(folder: Path, tmp_path: Path) -> None:
    evaluation(tmp_path / "one", {"baseline": 0.61})
    evaluation(tmp_path / "two", {"baseline": 0.62, "<b>": 0.7})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "evaluation.json").write_text('{"benchmarks": []}')
    section = benchmarks_section([tmp_path / name / "evaluation.json" for name in ("broken", "one", "two")])
    html = render_html(Page("title", "", [section]))
    rows = [plain(row) for row in cells(html)]
    assert ["baseline", "0.610 | [0.560, 0.660]", "0.610"] in rows
    assert ["baseline (two)", "0.620 | [0.570, 0.670]", "0.620"] in rows
    assert ["&lt;b&gt;", "0.700 | [0.650, 0.750]", "0.700"] in rows
    assert ["baseline (two)", "&lt;b&gt;", "+0.080 | [+0.030, +0.130]", "0.023"] in rows
    assert f"{tmp_path}/broken/evaluation.json is not an evaluation that can be read" in html
    assert "Failed: lost: no such folder." in html


def test_evaluations_in_folders_of_one_name_all_stand_there(tmp_path: Path) -> None:
    """Of three the second was lost, and the comparisons of all had the names of the first."""
    for place, value in {"a": 0.5, "b": 0.6, "c": 0.7}.items():
        evaluation(tmp_path / place / "final", {"m": value, "n": 0.4}, 100 if place == "b" else 1327)
    section = benchmarks_section([tmp_path / place / "final" / "evaluation.json" for place in "abc"])
    html = render_html(Page("title", "", [section]))
    rows = [plain(row) for row in cells(html)]
    named = {row[0]: row[1].partition(" ")[0] for row in rows if row[0].startswith("m") and "[" in row[1]}
    last = f"m ({tmp_path}/c/final)"
    assert named == {"m": "0.500", "m (final)": "0.600", last: "0.700"}
    assert [row[:2] for row in rows if row[-1] == "0.023"] == [
        ["m", "n"], ["m (final)", "n (final)"], [last, last.replace("m (", "n (")]
    ]  # fmt: skip
    assert "b/final/evaluation.json is of 100 items of RM-Bench and others are of 1,327" in html


@pytest.mark.parametrize(
    "change", [{"mcnemar": {}}, {"difference": {"overall": "high"}}, {"first": None, "difference": None}]
)
def test_a_comparison_of_another_kind_costs_its_file_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    evaluation(tmp_path, {"m": 0.5, "n": 0.4})
    file = tmp_path / "evaluation.json"
    told = {key: value for key, value in json.loads(file.read_text()).items() if key != "crc32"}
    told["benchmarks"]["rm_bench"]["comparisons"][0] |= change
    file.write_text(json.dumps(told))
    assert f"{file} is not an evaluation that can be read" in benchmarks_section([file]).lead


def test_a_browser_runs_nothing_of_the_pairs_and_nothing_reaches_over_a_narrow_window(
    page: Path, tmp_path: Path
) -> None:
    """The page as it is; and a copy that may run one script, which measures it."""
    program = chromium()
    if program is None:
        pytest.skip("there is no chromium to open the page with (apt-get install chromium)")
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text())
    assert text != page.read_text()
    measure = (
        "document.title = [innerWidth, document.documentElement.scrollWidth, document.querySelectorAll('svg').length]"
    )
    copy = tmp_path / "measured.html"
    copy.write_text(text.replace("</body>", f"<script>{measure}</script></body>"))
    with browser(program, tmp_path / "profile") as window:
        window.open(page.as_uri())
        window.until("document.readyState == 'complete' && document.querySelector('section')")
        dom = window.js("document.documentElement.outerHTML")
        window.size(390, 900)
        window.open(copy.as_uri())
        window.until("/^\\d+,\\d+,\\d+$/.test(document.title)")
        inner, whole, figures = map(int, window.js("document.title").split(","))
    assert Elements(dom).tags.count("section") == 9
    assert "<script>" not in dom
    assert whole <= inner <= 500
    assert figures >= 7


def test_what_is_no_merit_is_higher_and_not_better(tmp_path: Path) -> None:
    for name, values in {"baseline": (0.1, 0.2, 0.3), "long": (0.5, 0.61, 0.69)}.items():
        for seed, value in enumerate(values):
            write_run(tmp_path / name / str(seed), name, seed, {}, test={"length_correlation": value})
    section = results_section(study_of(find_runs("runs", f"{tmp_path}/*/*")), ["length_correlation"])
    assert "long is higher on test by 0.400" in section.lead
    html = render_html(Page("title", "subtitle", [section]))
    assert "better" not in html.partition("<main>")[2]
