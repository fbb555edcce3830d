from __future__ import annotations

from collections.abc import Callable
from math import nan
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_rm.analysis.detection import detection, detection_scores
from lightning_rm.analysis.history import Curve
from lightning_rm.analysis.plots.comparison import curves_of_methods
from lightning_rm.analysis.plots.recipes import decile_accuracy, prefix_accuracy, recipe_curves
from lightning_rm.analysis.plots.strength import (
    agreement_by_strength,
    detection_curves,
    strength_by_group,
    strength_distribution,
)
from lightning_rm.analysis.plots.style import BLUE, ORANGE, Key, save_figure
from lightning_rm.analysis.strength import agreement, grouped

VOTES = np.random.default_rng(0).normal(0.5, size=(200, 1)) + np.random.default_rng(1).normal(size=(200, 5))
MEAN, STD, SHARE = VOTES.mean(1), VOTES.std(1), (VOTES > 0).mean(1)
WRONG = np.random.default_rng(2).random(200) < 1 / (1 + np.exp(2 * MEAN))
DECILES = {
    "as labelled": (np.arange(10), np.linspace(0.3, 0.7, 10), np.full(10, 0.02)),
    "flipped": ([0, 1], [0.7, 0.6], [nan, 0.1]),
}


def curve(steps: list[int], values: list[float]) -> Curve:
    return Curve(np.array(steps), np.array(values))


def lines(figure: Figure, panel: int = 0) -> dict[str, list[list[float]]]:
    """Label of each line of a panel -> its positions and values."""
    drawn = {str(line.get_label()): np.asarray(line.get_data()).tolist() for line in figure.axes[panel].get_lines()}
    for container in figure.axes[panel].containers:
        if container.get_label():
            drawn[str(container.get_label())] = np.asarray(container[0].get_data()).tolist()
    return drawn


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def title(figure: Figure, panel: int = 0) -> str:
    return figure.axes[panel].get_title(loc="left")


FIGURES: dict[str, Callable[[], Figure]] = {
    "distribution": lambda: strength_distribution(MEAN, STD),
    "groups": lambda: strength_by_group(grouped(MEAN, STD)),
    "agreement": lambda: agreement_by_strength(agreement(MEAN, ~WRONG, 5)),
    "deciles": lambda: decile_accuracy(DECILES, 500, 0.71),
    "prefixes": lambda: prefix_accuracy({"from the weak end": ([0.1, 1], [0.4, 0.7], [0.01, 0.02])}, 500),
    "recipes": lambda: recipe_curves({"val/accuracy": {"baseline": [curve([0, 1], [0.5, 0.6])]}}, 1000, 0.5),
    "detection": lambda: detection_curves(detection_scores(MEAN, STD, SHARE), WRONG),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_written_the_same_each_time(name: str, tmp_path: Path) -> None:
    first = save_figure(FIGURES[name](), tmp_path / name)
    second = save_figure(FIGURES[name](), tmp_path / "again")
    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in first[1].read_text()
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_every_panel_has_labelled_axes(name: str) -> None:
    for axes in FIGURES[name]().axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel() or axes.get_title(loc="left") == "Validation accuracy"


def test_distribution_counts_pairs_and_names_the_share_below_zero() -> None:
    figure = strength_distribution([-1, 1, 2, 3, nan], [1, 1, 1, 1, nan], num_bins=4)
    assert title(figure) == "Strength of 4 pairs, 25.0% below 0"
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.containers[0]) == 4  # pyright: ignore[reportAttributeAccessIssue]


def test_no_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="no pair has strength"):
        strength_distribution([nan], [nan])


def test_groups_below_zero_have_another_colour_and_the_least_std_is_ringed() -> None:
    groups = grouped([-2, -1, 1, 2], [3, 1, 2, 4], num_groups=4)
    figure = strength_by_group(groups)
    assert legend(figure) == ["group", "the group whose voters agree most"]
    left, right = figure.axes
    bars = left.containers[0]
    assert [bar.get_height() for bar in bars] == [-2, -1, 1, 2]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [ORANGE, ORANGE, BLUE, BLUE]
    std, least = right.get_lines()
    assert np.asarray(std.get_data()).tolist() == [[0.125, 0.375, 0.625, 0.875], [3, 1, 2, 4]]
    assert np.asarray(least.get_data()).tolist() == [[0.375], [1]]


def test_agreement_shows_each_group() -> None:
    groups = agreement(MEAN, ~WRONG, 5)
    axes = agreement_by_strength(groups).axes[0]
    assert np.asarray(axes.containers[0][0].get_data()).tolist() == [groups.mean.tolist(), groups.share.tolist()]
    assert axes.get_title(loc="left") == "Agreement over 200 pairs in 5 groups"


def test_deciles_show_series_chance_and_reference() -> None:
    figure = decile_accuracy(DECILES, 1500, 0.71, "all pairs")
    assert legend(figure) == ["as labelled", "flipped", "chance", "all pairs"]
    assert all(isinstance(symbol, Line2D) for symbol in figure.legends[0].legend_handles)  # and no error bars
    drawn = lines(figure)
    assert drawn["as labelled"] == [list(range(10)), DECILES["as labelled"][1].tolist()]  # pyright: ignore
    assert drawn["flipped"] == [[0, 1], [0.7, 0.6]]
    assert drawn["all pairs"][1] == [0.71, 0.71]
    assert "1,500 test pairs" in title(figure)
    assert "all pairs" not in legend(decile_accuracy(DECILES, 1500))


def test_no_line_crosses_deciles_that_were_not_run_and_no_bar_stands_where_there_is_one_run() -> None:
    apart = {"two runs": ([0, 1, 4], [0.5, 0.6, 0.7], [0.1, nan, 0.2]), "one run": ([2, 3], [0.5, 0.6], [nan, nan])}
    figure = decile_accuracy(apart, 100)
    drawn = lines(figure)
    np.testing.assert_equal(drawn["two runs"], [[0, 1, 2, 3, 4], [0.5, 0.6, nan, nan, 0.7]])
    assert drawn["one run"] == [[2, 3], [0.5, 0.6]]
    assert [container.get_label() for container in figure.axes[0].containers] == ["two runs"]


def test_prefixes_are_shown_by_share() -> None:
    figure = prefix_accuracy({"weak": ([0.1, 1], [0.4, 0.7], [0, 0]), "strong": ([0.5], [0.6], [0])}, 20)
    assert lines(figure)["weak"] == [[0.1, 1], [0.4, 0.7]]
    assert legend(figure) == ["weak", "strong", "chance"]


def test_a_recipe_is_the_mean_of_its_seeds_in_a_band() -> None:
    """The second seed is interpolated at step 10 and bounds the steps to [5, 15]; the band is the sample std."""
    seeds = [curve([0, 10, 20], [0, 1, 2]), curve([5, 15], [1, 3])]
    figure = recipe_curves({"val/accuracy": {"flip": seeds}}, 1000)
    assert lines(figure)["flip"] == [[5, 10, 15], [0.75, 1.5, 2.25]]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    spread = np.array([0.5, 1, 1.5]) / 2**0.5
    assert np.asarray(band)[:, 1].max() == pytest.approx((np.array([0.75, 1.5, 2.25]) + spread).max())
    assert figure.get_suptitle() == "1,000 training pairs, 2 seeds each"


def test_a_recipe_has_one_colour_in_all_panels_and_one_entry_in_the_legend() -> None:
    one, two = curve([0, 1], [0.5, 0.6]), curve([0, 1], [0.5, 0.7])
    metrics = {"a": {"baseline": [one], "flip": [two, one]}, "b": {"flip": [one]}, "c": {"flip": [one]}, "d": {}}
    figure = recipe_curves(metrics, 10)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["A", "B", "C", "D"]
    assert figure.axes[0].get_lines()[1].get_color() == figure.axes[1].get_lines()[0].get_color()
    assert legend(figure) == ["baseline", "flip"]
    assert "1 to 2 seeds each" in figure.get_suptitle()


def test_seeds_without_common_steps_are_two_lines_and_no_metrics_are_refused() -> None:
    figure = recipe_curves({"a": {"flip": [curve([0, 1], [0, 0]), curve([2, 3], [0, 0])]}}, 10)
    assert len(figure.axes[0].get_lines()) == 2
    assert legend(figure) == ["flip"]
    with pytest.raises(ValueError, match="nothing to draw"):
        recipe_curves({}, 10)


def test_runs_of_a_method_without_common_steps_are_drawn_each_by_itself() -> None:
    apart, near = curve([2, 3], [0.7, 0.8]), curve([0, 3], [0.1, 0.4])
    figure = curves_of_methods(
        {Key("a", BLUE): [near, curve([0, 1], [0.5, 0.6]), apart], Key("b", ORANGE): [near]}, "x"
    )
    lines = [line.get_ydata() for line in figure.axes[0].get_lines()]
    assert [np.asarray(values).tolist() for values in lines] == [[0.1, 0.4], [0.5, 0.6], [0.7, 0.8], [0.1, 0.4]]


def test_detection_curves_are_over_the_pairs_that_have_every_score() -> None:
    scores = {"mean": MEAN, "vote share": np.where(np.arange(200) < 50, nan, SHARE)}
    figure = detection_curves(scores, WRONG)
    found = detection(MEAN[50:], WRONG[50:])
    assert f"mean: average precision {found.average_precision:.3f}, AUROC {found.auroc:.3f}" in legend(figure)
    assert title(figure) == f"Finding {WRONG[50:].sum()} wrong labels among 150 pairs"


def test_the_area_under_a_detection_curve_is_its_average_precision() -> None:
    line = detection_curves({"mean": MEAN}, WRONG).axes[0].get_lines()[0]
    recall, precision = np.asarray(line.get_data())
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(detection(MEAN, WRONG).average_precision)
