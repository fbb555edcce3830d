from __future__ import annotations

import csv
from math import nan
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.plots.sweeps import Band, metric_panels
from lightning_rm.analysis.reports.sweeps import sweep_report
from lightning_rm.analysis.runs import Run, shown, varied
from lightning_rm.commands.analyze import analyze
from tests.analysis.made_runs import write_run
from tests.commands.test_conf import composed
from tests.float64 import same


def accuracy(beta: float, temperature: float, seed: int) -> float:
    return 0.5 + 0.1 * beta + 0.01 * temperature + 0.001 * seed**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three values of beta, two temperatures and three seeds, but one point less; and two baselines."""
    number = 0
    for beta in (1.0, 0.01, 0.1):
        for temperature in (0.5, 0.05):
            for seed in range(3):
                if (beta, temperature) == (0.1, 0.5):
                    continue
                settings = {"module": {"beta": beta}, "contrast": {"loss": {"temperature": temperature}}}
                value = accuracy(beta, temperature, seed)
                sets = {"test": {"accuracy": value}, "test__ood": {"accuracy": value - 0.1}}
                write_run(tmp_path / "sweep" / str(number), "simcse", seed, settings, **sets)
                number += 1
    for seed in range(2):
        sets = {"test": {"accuracy": 0.4 + 0.2 * seed}, "test__ood": {"accuracy": 0.3}}
        write_run(tmp_path / "base" / str(seed), "baseline", seed, {}, **sets)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def drawn(figure: Figure) -> list[dict[str, tuple[list[float], list[float], list[float]]]]:
    """For each panel, label of a series -> positions, means and half lengths of its bars."""
    found: list[dict[str, tuple[list[float], list[float], list[float]]]] = []
    for axes in figure.axes:
        lines: dict[str, tuple[list[float], list[float], list[float]]] = {}
        for container in axes.containers:
            line, _, (bars,) = container.lines  # pyright: ignore[reportAttributeAccessIssue]
            halves = [float(np.ptp(path.vertices[:, 1]) / 2) for path in bars.get_paths()]
            lines[str(container.get_label())] = (line.get_xdata().tolist(), line.get_ydata().tolist(), halves)
        found.append(lines)
    return found


def test_a_table_has_every_point_with_mean_and_spread(folder: Path) -> None:
    runs, reference = find_runs("sweep", f"{folder}/sweep/*"), find_runs("reference", f"{folder}/base/*")
    metrics = ["test/accuracy", "ood/accuracy"]
    written = sweep_report(runs, "module.beta", "contrast.loss.temperature", metrics, reference, folder / "out")
    assert [path.name for path in written] == ["sweep.png", "sweep.svg", "sweep.csv", "sweep.md"]
    assert all(path.stat().st_size for path in written)
    *points, last = rows_of(written[2])
    order = [(row["contrast.loss.temperature"], row["module.beta"]) for row in points]
    assert order == [("0.05", "0.01"), ("0.05", "0.1"), ("0.05", "1"), ("0.5", "0.01"), ("0.5", "1")]
    for row, (temperature, beta) in zip(points, order, strict=True):
        values = [accuracy(float(beta), float(temperature), seed) for seed in range(3)]
        mean = sum(values) / 3
        spread = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
        assert row["runs"] == "3"
        assert float(row["test/accuracy"]) == pytest.approx(mean, abs=1e-4)
        assert float(row["test/accuracy sd"]) == pytest.approx(spread, abs=1e-4)
        assert float(row["test/ood/accuracy"]) == pytest.approx(mean - 0.1, abs=1e-4)
    assert last["contrast.loss.temperature"] == "reference: baseline, 2 runs"
    assert float(last["test/accuracy"]) == same(0.5)
    assert float(last["test/accuracy sd"]) == pytest.approx(0.2 / 2**0.5, abs=1e-4)
    assert "15 runs, mean ± standard deviation over seeds\n" in written[3].read_text()


def test_one_run_a_point_has_no_spread(folder: Path) -> None:
    """Not a spread of zero. A reference of one run is a line without a band."""
    runs = [run for run in find_runs("sweep", f"{folder}/sweep/*") if run.setting("seed") == 0]
    reference = find_runs("reference", f"{folder}/base/1")
    written = sweep_report(
        runs, "module.beta", "contrast.loss.temperature", ["test/accuracy"], reference, folder / "out"
    )
    assert {row["runs"] for row in rows_of(written[2])} == {"1"}
    assert {row["test/accuracy sd"] for row in rows_of(written[2])} == {""}


def test_the_command_draws_a_sweep(folder: Path) -> None:
    options = ["x=module.beta", "metrics=[test/accuracy]", f"reference={folder}/base/*", f"out={folder}/out"]
    written = analyze(composed(f"sweep={folder}/sweep/*", *options, command="analyze"))
    assert [path.name for path in written] == ["sweep.png", "sweep.svg", "sweep.csv", "sweep.md"]
    first, *_, last = rows_of(written[2])
    assert first["runs"] == "6"
    assert last["module.beta"] == "reference: baseline, 2 runs"
    assert "over seeds, contrast.loss.temperature" in written[3].read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x=beta"], "sweep/0: its config.yaml has no value 'beta'; it has module.beta"),
        (["x=module.beta", "series=temperature"], "no value 'temperature'; it has contrast.loss.temperature"),
        (["x=module.beta", "metrics=[val/accuracy]"], "no result 'val/accuracy'; it has test/accuracy"),
        (["x=module.beta", "reference=0.6"], "reference=0.6: a sweep is compared with runs"),
        (["x=module.beta", "reference=none/*"], "reference='none/\\*' names no run"),
        ([], "needs x=KEY, .*; the runs differ in seeds, contrast.loss.temperature, module.beta"),
    ],
)
def test_mistakes_are_named(folder: Path, options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analyze(composed(f"sweep={folder}/sweep/*", *options, f"out={folder}/out", command="analyze"))


def test_a_run_without_the_setting_is_named(folder: Path) -> None:
    runs = [*find_runs("sweep", f"{folder}/sweep/*"), *find_runs("sweep", f"{folder}/base/0")]
    with pytest.raises(ValueError, match=r"base/0: its config.yaml has no value 'module.beta'"):
        sweep_report(runs, "module.beta", None, ["test/accuracy"], [], folder)


def test_a_folder_stands_for_the_runs_in_it(folder: Path) -> None:
    every = [run.folder for run in find_runs("runs", f"{folder}/*/*")]
    assert len(every) == 17
    assert [run.folder for run in find_runs("runs", f"{folder}/*")] == every
    assert {run.folder for run in find_runs("runs", folder)} == set(every)
    assert [run.folder for run in find_runs("runs", every[0])] == every[:1]


def test_a_run_that_two_globs_name_is_one_run(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "base" / "1")
    named = [f"{folder}/base/1", f"{folder}/base/*", f"{folder}/link", f"{folder}/base/../base/0"]
    assert [run.folder for run in find_runs("recipes", named)] == [folder / "base" / "1", folder / "base" / "0"]


@pytest.mark.parametrize(("named", "shown"), [(["base/*", "bsae/*"], "'.*/bsae/.*'"), ([], r"\[\]")])
def test_every_glob_names_a_run(folder: Path, named: list[str], shown: str) -> None:
    with pytest.raises(ValueError, match=f"recipes={shown} names no run: a run is a folder with a config.yaml"):
        find_runs("recipes", [f"{folder}/{name}" for name in named])


@pytest.mark.parametrize("text", ["data: ${elsewhere:}\n", "- name\n", "name: a\n"])
def test_a_configuration_that_is_no_runs_is_named(folder: Path, text: str) -> None:
    (folder / "base" / "conf").mkdir()
    (folder / "base" / "conf" / "config.yaml").write_text(text)
    with pytest.raises(
        ValueError, match=r"recipes: .*/base/conf/config\.yaml is not a run's, it has no name and seed; name"
    ):
        find_runs("recipes", f"{folder}/base/*")


def test_settings_are_flat_and_lists_whole(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "a", 1, {"optimizer": {"lr": 5e-6, "betas": [0.9, 0.99]}, "members": None, "none": {}})
    (run,) = find_runs("sweep", str(tmp_path / "run"))
    assert run.setting("optimizer.betas") == [0.9, 0.99]
    assert run.setting("members") is None
    assert run.setting("none") == {}
    assert [shown(run.setting(key)) for key in ("optimizer.lr", "members", "name")] == ["5e-06", "null", "a"]


def test_values_are_shown_as_people_write_them() -> None:
    values = [1, 1.0, 0.1, 123456.5, True, None, "simcse", [1, 2]]
    assert [shown(value) for value in values] == ["1", "1", "0.1", "123456.5", "true", "null", "simcse", "[1, 2]"]


def test_what_runs_of_a_point_differ_in() -> None:
    settings = [{"a": 1, "b": 1, "paths.run": 1}, {"a": 1, "b": 2, "paths.run": 2}, {"a": 2, "b": 1, "c": 0}]
    runs = [Run(Path(), "name", 0, {}, one) for one in settings]
    assert varied([runs[:2]]) == ["b"]
    assert varied([runs[:2], runs[2:]]) == ["b"]
    assert varied([runs]) == ["a", "b", "c"]


def test_names_are_drawn_in_order_without_a_line_between_them(tmp_path: Path) -> None:
    for number, method in enumerate(("swav", "none", "simcse")):
        results = {"test": {"accuracy": 0.5 + 0.1 * number}}
        write_run(tmp_path / str(number), "a", 0, {"contrast": {"method": method}}, **results)
    runs = find_runs("sweep", f"{tmp_path}/?")
    written = sweep_report(runs, "contrast.method", None, ["test/accuracy"], [], tmp_path / "out")
    assert [row["contrast.method"] for row in rows_of(written[2])] == ["none", "simcse", "swav"]
    assert [float(row["test/accuracy"]) for row in rows_of(written[2])] == [0.6, 0.7, 0.5]


def test_panels_draw_means_spreads_and_the_band() -> None:
    lines = {"a": ([0.01, 1], [0.5, 0.6], [0.02, 0.03]), "b": ([1], [0.7], [0.0])}
    bands = {"test/accuracy": Band(0.4, 0.1)}
    metrics = {"test/accuracy": lines, "val/nll": {"b": lines["b"]}}
    figure = metric_panels(metrics, "module.beta", "title", bands=bands, band_name="reference")
    first, second = drawn(figure)
    assert first["a"][:2] == ([0.01, 1], [0.5, 0.6])
    assert first["a"][2] == same([0.02, 0.03])
    assert second.keys() == {"b"}
    (band,) = figure.axes[0].patches
    np.testing.assert_allclose([band.get_y(), band.get_height()], [0.3, 0.2], rtol=1e-12, atol=1e-12)  # pyright: ignore[reportAttributeAccessIssue]
    assert not figure.axes[1].patches
    colors = {axes.get_title(loc="left"): axes.containers[-1].lines[0].get_color() for axes in figure.axes}  # pyright: ignore[reportAttributeAccessIssue]
    assert colors["Test accuracy"] == colors["Validation NLL"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a", "b", "reference"]


@pytest.mark.parametrize(
    ("places", "scale"),
    [
        ([0.1, 2.0], "linear"),
        ([0.1, 2.1], "log"),
        ([0, 0.1, 0.2], "linear"),
        ([0, 0.01, 1], "symlog"),
        ([-9, 1, 99], "linear"),
    ],
)
def test_a_wide_span_is_logarithmic(places: list[float], scale: str) -> None:
    line = (places, [0.5] * len(places), [nan] * len(places))
    (axes,) = metric_panels({"test/accuracy": {"runs": line}}, "x", "title").axes
    assert axes.get_xscale() == scale


def test_ticks_of_a_logarithmic_axis_are_values_that_leave_each_other_room() -> None:
    places = [1e-6, 1.1e-6, 1e-5, 1e-4]
    line = (places, [0.5] * 4, [0.0] * 4)
    (axes,) = metric_panels({"test/accuracy": {"runs": line}}, "x", "title").axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1e-06", "1e-05", "0.0001"]


def test_one_series_needs_no_legend_and_names_are_ticks() -> None:
    line = ([0.0, 1.0], [0.5, 0.6], [0.0, 0.0])
    figure = metric_panels({"test/accuracy": {"runs": line}}, "x", "title", categories=["simcse", "swav"])
    assert not figure.legends
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["simcse", "swav"]
    assert figure.axes[0].containers[0].lines[0].get_linestyle() == "None"  # pyright: ignore[reportAttributeAccessIssue]


def test_deciles_take_a_number_or_runs_to_compare_with(folder: Path) -> None:
    for number in range(2):
        settings = {"treatment": {"decile": {"number": number}}}
        results = {"test": {"accuracy": 0.6, "num_pairs": 10}}
        write_run(folder / "deciles" / str(number), "decile", 0, settings, **results)
    for name, reference in (("number", "0.5"), ("runs", f"{folder}/base/*")):
        options = [f"deciles={folder}/deciles/*", f"reference={reference}", f"out={folder}/{name}"]
        analyze(composed(*options, command="analyze"))
    assert (folder / "number" / "deciles.png").read_bytes() == (folder / "runs" / "deciles.png").read_bytes()


def test_names_that_are_numbers_stand_in_their_order(tmp_path: Path) -> None:
    """As text, 10 is before 2."""
    for number, value in enumerate(("auto", 10, 2, None)):
        write_run(tmp_path / "runs" / str(number), "a", 0, {"x": value}, test={"accuracy": 0.5})
    sweep_report(find_runs("sweep", f"{tmp_path}/runs/*"), "x", None, ["accuracy"], [], tmp_path)
    assert [row["x"] for row in rows_of(tmp_path / "sweep.csv")] == ["2", "10", "auto", "null"]
