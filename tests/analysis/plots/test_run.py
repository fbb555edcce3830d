from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from lightning_rm.analysis.calibration import reliability
from lightning_rm.analysis.history import Curve, ends_whole, read_history
from lightning_rm.analysis.plots.parts import part_curves, parts
from lightning_rm.analysis.plots.run import reliability_diagram, reward_histogram, training_curves
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.analysis.run import write_figures
from tests.float64 import same

CSV = """epoch,step,train/loss,train_epoch/accuracy,val/accuracy,val/nll
0,9,0.7,,,
0,9,,,0.6,0.65
0,19,nan,,,
0,19,,0.55,,
1,20,,,0.9,0.3
"""
"""Training ended at step 19; the rows of step 20 are an evaluation of the best weights."""


def drawn(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Label of each line of a figure -> its points."""
    return {
        str(line.get_label()): list(zip(*(np.asarray(line.get_data()).tolist()), strict=True))
        for axes in figure.axes
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def test_history_leaves_empty_cells_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    history = read_history(path)
    assert list(history) == ["train/loss", "val/accuracy", "val/nll", "train_epoch/accuracy"]
    assert history["val/nll"].steps.tolist() == [9, 20]
    assert history["val/nll"].values.tolist() == [0.65, 0.3]
    assert history["train/loss"].steps.tolist() == [9, 19]
    assert np.isnan(history["train/loss"].values[1])


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    """It begins as 0.69 and may stand there as 0."""
    path = tmp_path / "metrics.csv"
    for cut in (CSV[:-1], CSV[:-3], CSV[:-12]):
        path.write_text(cut)
        assert read_history(path)["val/nll"].values.tolist() == [0.65]
        assert not ends_whole(path)
    path.write_text(CSV)
    assert ends_whole(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("epoch,step,a\n0,1\n0,2,1\n", "CSV parse error: Expected 3 columns, got 2"),
        ("epoch,step,a,a\n0,1,2,3\n", "2 times"),
        ("epoch,step,a\n0,,2\n", "a line has no step"),
        ("epoch,step,a\n0,1,high\n", "conversion error"),
        (f"step,{'a' * 200_000}\n1,2\n", "field larger than field limit"),
    ],
)
def test_a_history_that_is_none_is_said_by_name(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path} is not a table of metrics: .*{what}"):
        read_history(path)
    with pytest.raises(ValueError, match=r"is a folder; name the metrics\.csv in it"):
        read_history(tmp_path)


@pytest.mark.parametrize("text", ["", "epoch,step,train/loss\n"])
def test_a_run_that_logged_nothing_has_an_empty_history_and_a_figure_that_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    history = read_history(path)
    assert history == {}
    figure = training_curves(history)
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["nothing logged", "nothing logged"]


def test_curves_are_the_logged_values_up_to_the_last_training_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(CSV)
    lines = drawn(training_curves(read_history(path)))
    assert lines["Validation accuracy"] == [(9, 0.6)]
    assert lines["Validation NLL"] == [(9, 0.65)]
    assert lines["Training loss"][0] == (9, 0.7)


def test_a_single_validation_is_a_dot_though_it_came_after_the_last_logged_step() -> None:
    one = Curve(np.array([12]), np.array([0.6]))
    history = {"train/loss": Curve(np.arange(10), np.ones(10)), "val/accuracy": one, "val/length_accuracy": one}
    _, right = training_curves(history).axes
    dots = [line for line in right.get_lines() if line.get_marker() == "o"]
    assert [np.asarray(line.get_data()).tolist() for line in dots] == [[[12], [0.6]]] * 2


def test_without_a_set_named_val_every_validation_set_has_a_curve_and_no_subset_has_one() -> None:
    curve = Curve(np.array([1]), np.array([0.5]))
    keys = ("train/loss", "val/a/accuracy", "val/b/accuracy", "val/a/hard/accuracy", "val/a/nll", "test/a/accuracy")
    lines = drawn(training_curves(dict.fromkeys(keys, curve)))
    named = {"Training loss", "Accuracy on val/a", "Accuracy on val/b", "NLL on val/a"}
    assert set(lines) == named | {"log 2, of guessing", "one half, of guessing"}


def test_a_long_curve_is_shown_with_its_running_mean() -> None:
    """60 points: means over 3 neighbours, of which there are 58, at the middle step of each three."""
    values = np.random.default_rng(0).normal(size=60)
    lines = drawn(training_curves({"train/loss": Curve(np.arange(60) * 10, values)}))
    points = lines["Training loss, mean of 3"]
    assert len(points) == 58
    assert points[0] == same((10, values[:3].mean()))
    assert points[-1] == same((580, values[-3:].mean()))


def test_every_part_of_a_method_has_a_panel_and_no_metric_or_loss_has_one() -> None:
    steps = np.arange(3)
    names = ("loss", "ranking", "alignment", "difference_loss", "accuracy", "margin_std", "clean_accuracy", "a/b")
    history = {f"train/{name}": Curve(steps, np.arange(3.0) + place) for place, name in enumerate(names)}
    history |= {"val/alignment": Curve(steps, np.ones(3)), "lr-AdamW": Curve(steps, np.ones(3))}
    assert list(parts(history)) == ["ranking", "alignment", "difference_loss"]
    figure = part_curves(history)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Ranking", "Alignment", "Difference loss"]
    assert [axes.get_lines()[0].get_ydata().tolist() for axes in figure.axes] == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_part_that_is_the_whole_loss_is_left_out_and_no_part_is_an_error() -> None:
    loss = Curve(np.arange(2), np.array([0.7, 0.6]))
    with pytest.raises(ValueError, match="no part of a method was logged"):
        part_curves({"train/loss": loss, "train/ranking": loss, "val/nll": loss})


def test_a_long_part_is_shown_with_its_running_mean() -> None:
    values = np.random.default_rng(0).normal(size=60)
    (axes,) = part_curves({"train/alignment": Curve(np.arange(60), values)}).axes
    raw, mean = axes.get_lines()
    assert raw.get_ydata().tolist() == values.tolist()  # pyright: ignore[reportAttributeAccessIssue]
    assert mean.get_ydata()[0] == same(values[:3].mean())  # pyright: ignore[reportIndexIssue]


def test_reward_histogram_shares_bins_and_marks_the_means() -> None:
    chosen, rejected = np.array([1.0, 2.0, 6.0]), np.array([0.0, 1.0, -4.0])
    figure = reward_histogram(chosen, rejected, num_bins=10)
    axes = figure.axes[0]
    steps = [patch.get_data() for patch in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert [data.values.sum() for data in steps] == [3, 3, 3, 3]
    assert all(data.edges.tolist() == np.linspace(-4, 6, 11).tolist() for data in steps)
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [3, -1]
    assert "mean margin 4.00" in axes.get_title(loc="left")


def test_responses_by_themselves_are_of_no_pair() -> None:
    """Beside pairs in a third colour, and without any in one; a mean is of each response once."""
    mixed = reward_histogram([1.0, 3.0], [0.0, 1.0], data_set="val", alone=[4.0, 5.0, 9.0])
    assert mixed.axes[0].get_title(loc="left") == "Rewards on val: 2 pairs, mean margin 1.50; 3 responses alone"
    labels = [text.get_text() for text in mixed.legends[0].get_texts()]
    assert labels == ["chosen, mean 2.00", "rejected, mean 0.50", "alone, mean 6.00"]
    single = reward_histogram([], [], data_set="val", alone=[4.0, 5.0, 9.0])
    assert single.axes[0].get_title(loc="left") == "Rewards on val: 3 responses"
    assert [text.get_text() for text in single.legends[0].get_texts()] == ["responses, mean 6.00"]


def test_a_run_on_single_responses_has_figures_of_what_it_has(tmp_path: Path) -> None:
    """A set without a pair has no reliability; one with ties, whose rewards differ, has."""
    (tmp_path / "pairs").mkdir()
    rewards = {"val_val": ([1.0, 2.0], [1.0, 2.0]), "test_test": ([1.0, 2.0], [1.0, 0.5]), "test_ties": ([1.0], [0.0])}
    for name, (chosen, rejected) in rewards.items():
        columns = {"chosen": chosen, "rejected": rejected, "label": [0.5] * len(chosen)}
        pq.write_table(pa.table(columns), tmp_path / "pairs" / f"{name}.parquet")
    assert {path.stem for path in write_figures(tmp_path)} == {
        *(f"rewards_{name}" for name in rewards),
        "reliability_test_test",
        "reliability_test_ties",
    }


def test_a_history_of_single_responses_tells_nothing_of_pairs(tmp_path: Path) -> None:
    """Of `val`, where no pair has two; of `val/ties` pairs have, though none takes a side."""
    path = tmp_path / "metrics.csv"
    values = {"accuracy": "nan", "nll": "0.6931", "margin_std": "0.0", "reward_mean": "2.0"}
    cells = {f"val/{name}": value for name, value in values.items()} | {"val/score_rank_correlation": "0.5"}
    cells |= {f"val/ties/{name}": value for name, value in values.items()} | {"val/ties/margin_std": "0.4"}
    path.write_text(f"epoch,step,train/loss,{','.join(cells)}\n0,9,0.7,{','.join(cells.values())}\n")
    history = read_history(path)
    of_ties = {f"val/ties/{name}" for name in values}
    assert history.keys() == {"train/loss", "val/reward_mean", "val/score_rank_correlation", *of_ties}
    single = {key: curve for key, curve in history.items() if key not in of_ties}
    left, right = training_curves(single).axes
    assert tuple(axes.get_title(loc="left") for axes in (left, right)) == (
        "Loss over training",
        "Rank correlation over training",
    )
    lines = drawn(training_curves(single))
    assert lines.keys() == {"Training loss", "Validation rank correlation with scores", "0, of guessing"}
    assert lines["Validation rank correlation with scores"] == [(9, 0.5)]


def test_reward_histogram_of_equal_rewards_is_drawn() -> None:
    figure = reward_histogram([2.0], [2.0])
    assert "mean margin 0.00" in figure.axes[0].get_title(loc="left")


def test_reliability_diagram_shows_the_bins_and_their_error() -> None:
    generator = np.random.default_rng(0)
    margins, labels = generator.normal(size=200) * 2, generator.integers(0, 2, 200).astype(float)
    bins = reliability(margins, labels, 5)
    top, bottom = reliability_diagram(margins, labels, 5).axes
    accuracy, gap = top.containers
    np.testing.assert_allclose([bar.get_height() for bar in accuracy], bins.accuracy, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        [bar.get_height() for bar in gap], np.abs(bins.accuracy - bins.confidence), rtol=1e-12, atol=1e-12
    )
    assert [bar.get_height() for bar in bottom.containers[0]] == bins.num_pairs.tolist()
    assert top.get_title(loc="left") == f"Calibration error: {bins.calibration_error:.3f} over 200 pairs"


def test_titles_name_the_set() -> None:
    figure, other = (
        reward_histogram([1.0], [0.0], data_set="test/ood"),
        reliability_diagram([1], [1], data_set="test/ood"),
    )
    assert figure.axes[0].get_title(loc="left") == "Rewards on test/ood: 1 pairs, mean margin 1.00"
    assert other.axes[0].get_title(loc="left").startswith("Calibration error on test/ood: ")


def test_reliability_diagram_leaves_empty_bins_empty() -> None:
    top, bottom = reliability_diagram([10.0, -10.0], [1.0, 1.0], 4).axes
    heights = [bar.get_height() for bar in top.containers[0]]
    assert np.isnan(heights[:3]).all()
    assert heights[3] == 0.5
    assert [bar.get_height() for bar in bottom.containers[0]] == [0, 0, 0, 2]


@pytest.mark.parametrize(("values", "message"), [([], "no pairs"), ([1.0, float("nan")], "1 of 2 values are not")])
def test_nothing_and_not_a_number_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reward_histogram(values, values)
    with pytest.raises(ValueError, match=message):
        reliability_diagram(values, [1.0] * len(values))


def test_saved_files_are_the_same_bytes_each_time_and_name_no_date(tmp_path: Path) -> None:
    first = save_figure(reliability_diagram([1.0, -2.0], [1.0, 1.0]), tmp_path / "new" / "v1.2")
    second = save_figure(reliability_diagram([1.0, -2.0], [1.0, 1.0]), tmp_path / "again")
    assert [path.name for path in first] == ["v1.2.png", "v1.2.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert "dc:date" not in first[1].read_text()
    assert first[0].read_bytes().startswith(b"\x89PNG")


def test_drawing_leaves_the_users_settings_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save_figure(reward_histogram([1.0], [0.0]), tmp_path / "figure")
    assert dict(mpl.rcParams) == before
