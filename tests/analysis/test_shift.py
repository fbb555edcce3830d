from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.reports.shifts import shift_report, shifted_sets
from lightning_rm.analysis.runs import Run
from lightning_rm.commands.analyze import analyze
from tests.analysis.made_runs import write_run
from tests.commands.test_conf import composed
from tests.float64 import same


def results_of(slope: float, seed: int) -> dict[str, dict[str, float]]:
    """Pairs at 25 and 100 beside the set of training, groups of responses at 0 and 50."""
    pairs = {f"test__shift_{shift}": {"accuracy": 0.8 - slope * shift / 100 + 0.01 * seed} for shift in (25, 100)}
    groups = {
        f"test__responses_shift_{shift}": {"difference": 2 - slope * shift / 100, "num_groups": 50.0, "gold": 1.0}
        for shift in (0, 50)
    }
    return {"test": {"accuracy": 0.8 + 0.01 * seed}, "test__ood": {"accuracy": 0.7}, **pairs, **groups}


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    for name, slope in (("baseline", 0.4), ("meta", 0.2)):
        for seed in range(2):
            write_run(tmp_path / "runs" / f"{name}{seed}", name, seed, {}, **results_of(slope, seed))
    return find_runs("shift", f"{tmp_path}/runs/*")


def test_metrics_stand_at_the_shift_of_their_set() -> None:
    sets = shifted_sets(
        {
            "test": {"accuracy": 0.8, "shift_50/accuracy": 0.7},
            "val/shift_50": {"accuracy": 0.7},
            "test/shift_50": {"accuracy": 0.7, "num_pairs": 9},
            "test/responses_shift_12.5_new": {"difference": 1.0, "gold_correlation": 0.5, "num_groups": 3},
            "test/swift_7": {"accuracy": 0.1},
        }
    )
    responses = {12.5: "test/responses_shift_12.5_new"}
    assert sets == {
        "accuracy": {50: "test/shift_50", 0: "test"},
        "difference": responses,
        "gold_correlation": responses,
    }


def test_two_modules_of_one_name_are_two_recipes(tmp_path: Path) -> None:
    for module, accuracy in (("a.BaselineRM", 0.5), ("a.MetaRM", 0.7)):
        write_run(tmp_path / module, "run", 0, {"module": {"_target_": module}}, test__shift_50={"accuracy": accuracy})
    written = shift_report(find_runs("shift", tmp_path), tmp_path / "out")
    with next(path for path in written if path.suffix == ".csv").open() as file:
        rows = [(row["recipe"], row["runs"], row["accuracy (pairs)"]) for row in csv.DictReader(file)]
    assert rows == [("run module=BaselineRM", "1", "0.5000"), ("run module=MetaRM", "1", "0.7000")]


def test_a_set_of_shift_0_stands_before_the_test_set() -> None:
    sets = shifted_sets({"test": {"accuracy": 0.8}, "test/shift_0": {"accuracy": 0.7}, "test/shift_9": {"accuracy": 0}})
    assert sets["accuracy"] == {0: "test/shift_0", 9: "test/shift_9"}
    assert shifted_sets({"test": {"accuracy": 0.8}}) == {}


def test_two_sets_of_one_shift_are_refused() -> None:
    with pytest.raises(ValueError, match="test/a_shift_5 and test/shift_5 are both of shift 5 and have difference"):
        shifted_sets({"test/shift_5": {"difference": 1.0}, "test/a_shift_5": {"difference": 1.0}})


def test_a_table_has_means_and_spreads_of_every_recipe_and_shift(runs: list[Run], tmp_path: Path) -> None:
    written = shift_report(runs, tmp_path)
    assert [path.name for path in written] == ["shift.png", "shift.svg", "shift.csv", "shift.md"]
    assert all(path.stat().st_size for path in written)
    with written[2].open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["recipe"], row["shift (%)"], row["runs"]) for row in rows] == [
        (name, shift, "2") for name in ("baseline", "meta") for shift in ("0", "25", "50", "100")
    ]
    for row in rows:
        slope, shift = {"baseline": 0.4, "meta": 0.2}[row["recipe"]], float(row["shift (%)"]) / 100
        if shift != 0.5:
            assert float(row["accuracy (pairs)"]) == same(0.8 - slope * shift + 0.005)
            assert float(row["accuracy (pairs) sd"]) == pytest.approx(0.01 / 2**0.5, abs=1e-4)
        else:
            assert row["accuracy (pairs)"] == ""
        if shift in (0, 0.5):
            assert float(row["difference (groups of responses)"]) == same(2 - slope * shift)
        else:
            assert row["difference (groups of responses)"] == ""
    table = written[3].read_text()
    assert "gold correlation" not in table
    assert "mean ± standard deviation over seeds\n" in table


def test_what_runs_of_one_name_differ_in_is_said(tmp_path: Path) -> None:
    """Two ascents under one name; a run's own seeds, the data's too, are seeds."""
    for number, (rate, seed) in enumerate([(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]):
        settings = {"module": {"ascent_lr": rate}, "data": {"world_seed": seed}}
        write_run(tmp_path / "runs" / str(number), "meta", seed, settings, **results_of(0.2, seed))
    written = shift_report(find_runs("shift", f"{tmp_path}/runs/*"), tmp_path)
    words = "mean ± standard deviation over seeds, module.ascent_lr"
    assert f"Metrics by shift of the policy, {words}\n" in written[3].read_text()
    assert f"4 runs, {words} -->" in written[1].read_text()


def test_the_command_draws_shift(runs: list[Run], tmp_path: Path) -> None:
    written = analyze(composed(f"shift={tmp_path}/runs/*", f"out={tmp_path}/out", command="analyze"))
    assert [path.name for path in written] == ["shift.png", "shift.svg", "shift.csv", "shift.md"]


def test_runs_without_shift_and_seeds_that_lack_a_set_are_named(runs: list[Run], tmp_path: Path) -> None:
    write_run(tmp_path / "plain", "plain", 0, {}, test={"accuracy": 0.5}, test__ood={"accuracy": 0.5})
    with pytest.raises(ValueError, match=r"plain: no test set is called shift_0, .*; its sets are test, test/ood"):
        shift_report(find_runs("shift", f"{tmp_path}/plain"), tmp_path)
    write_run(tmp_path / "short", "meta", 9, {}, test={"accuracy": 0.5}, test__shift_25={"accuracy": 0.5})
    with pytest.raises(ValueError, match="short has no result 'test/responses_shift_0/difference'"):
        shift_report([*runs, *find_runs("shift", f"{tmp_path}/short")], tmp_path)


def test_a_run_without_such_sets_beside_others_is_named(runs: list[Run], tmp_path: Path) -> None:
    """It was counted above the figure, and stood in no panel and no row."""
    write_run(tmp_path / "other", "other", 0, {}, test={"accuracy": 0.5})
    with pytest.raises(ValueError, match=r"other: no test set .* its sets are test\. .*leave it out"):
        shift_report([*runs, *find_runs("shift", tmp_path / "other")], tmp_path / "out")


def test_single_runs_have_no_spread_and_none_is_spoken_of(runs: list[Run], tmp_path: Path) -> None:
    shift_report([run for run in runs if run.seed == 0], tmp_path / "out")
    assert (tmp_path / "out" / "shift.md").read_text().startswith("# Metrics by shift of the policy\n")
