from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_rm.analysis.features import (
    Features,
    check_projection,
    collect_features,
    pca,
    separation,
    tsne,
)
from lightning_rm.analysis.plots.features import Panel, feature_panels
from lightning_rm.analysis.reports.features import feature_report, panel_of
from lightning_rm.batch import Sample
from lightning_rm.commands._features import find_models
from lightning_rm.commands.analyze import analyze
from lightning_rm.data.batches.layouts import padded
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.losses.geometry import effective_rank
from tests.commands.test_conf import composed
from tests.float64 import assert_same, same
from tests.toy import toy_model


def made(num_pairs: int = 30, hidden: int = 6, gap: float = 1.0, seed: int = 0) -> Features:
    """Features of which the chosen ones are `gap` further along the first direction, whose spread is largest."""
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, num_pairs, hidden, generator=generator) * torch.linspace(3, 0.5, hidden)
    feature[0, :, 0] += gap
    reward = torch.randn(2, num_pairs, generator=generator)
    return Features(feature, reward, torch.arange(num_pairs), 0.6, 2 * num_pairs)


@pytest.fixture
def pairs(tmp_path: Path) -> PairDataset:
    return prepare_pairs(SyntheticSource(21), world_tokenizer(), TokenizePolicy(256), tmp_path)


def numpy_centred(feature: Tensor) -> np.ndarray:
    flat = feature.numpy().astype(np.float64).reshape(-1, feature.shape[-1])
    return flat - flat.mean(0)


def test_features_are_those_of_each_response_alone(pairs: PairDataset) -> None:
    model = toy_model(dtype="float64")
    found = collect_features(model, pairs, batch_pairs=4)
    assert model.training
    assert found.feature.shape == (2, len(pairs), model.hidden_size)
    assert not found.feature.requires_grad
    model.eval()
    right = 0.0
    for row in range(len(pairs)):
        rewards: list[float] = []
        for side, sequence in enumerate(pairs.sample(row).sequences):
            with torch.no_grad():
                output = model(padded([Sample([sequence])], model.read_at, model.pad_id))
            assert_same(found.feature[side, row], output.feature[0, 0])
            assert_same(found.reward[side, row], output.reward[0, 0])
            rewards.append(float(output.reward))
        right += rewards[0] > rewards[1]
    assert found.accuracy == same(right / len(pairs))


def test_fewer_pairs_are_spread_over_the_data_set(pairs: PairDataset) -> None:
    """Of 21 pairs four, at 0, 21 / 4, 42 / 4 and 63 / 4 rounded down."""
    model = toy_model(dtype="float64")
    every, some = collect_features(model, pairs), collect_features(model, pairs, max_pairs=4)
    assert some.row.tolist() == [0, 5, 10, 15]
    assert (len(every.row), every.num_available, some.num_available) == (21, 21, 21)
    assert_same(some.feature, every.feature[:, some.row])


def test_the_layout_does_not_matter(pairs: PairDataset) -> None:
    model = toy_model(dtype="float64")
    one, other = (collect_features(model, pairs, layout=layout) for layout in ("padded", "packed"))
    assert_same(one.feature, other.feature)


def test_what_cannot_be_read_is_named(pairs: PairDataset) -> None:
    with pytest.raises(ValueError, match="1 of 21 pairs are read"):
        collect_features(toy_model(), pairs, max_pairs=1)
    with pytest.raises(ValueError, match="the model reads 16; set max_tokens=16"):
        collect_features(toy_model(max_position_embeddings=16), pairs)
    diverged = toy_model()
    next(diverged.backbone_parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        collect_features(diverged, pairs)


@pytest.mark.parametrize(("num_pairs", "hidden"), [(30, 6), (3, 40)])
def test_pca_is_the_eigenvectors_of_the_covariance(num_pairs: int, hidden: int) -> None:
    feature = made(num_pairs, hidden).feature
    centred = numpy_centred(feature)
    variance, direction = np.linalg.eigh(centred.T @ centred)
    expected = centred @ direction[:, [-1, -2]]
    plane = pca(feature.flatten(0, 1))
    np.testing.assert_allclose(plane.points.abs().numpy(), np.abs(expected), rtol=0, atol=1e-9)
    share = variance[[-1, -2]] / variance.sum()
    assert plane.axes == tuple(f"component {i + 1} ({share[i]:.0%} of variance)" for i in range(2))


def test_pca_has_a_sign_and_keeps_distances_of_a_plane() -> None:
    """Features that lie in a plane keep their distances; the longest direction is the first one, upwards."""
    flat = torch.zeros(50, 5, dtype=torch.float64)
    flat[:, [1, 3]] = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 4.0])
    points = pca(flat).points
    assert_same(torch.pdist(points), torch.pdist(flat))
    assert np.corrcoef(points[:, 0].numpy(), flat[:, 3].numpy())[0, 1] > 0.99
    assert_same(pca(flat + 7).points, points)


def test_separation_is_the_naive_one() -> None:
    feature = made().feature.double()
    means = [sum(kind) / len(kind) for kind in feature]
    within = [float((one - mean) @ (one - mean)) for kind, mean in zip(feature, means, strict=True) for one in kind]
    expected = float((means[0] - means[1]) @ (means[0] - means[1])) / (sum(within) / len(within))
    assert separation(feature) == same(expected)


def test_separation_by_hand() -> None:
    """Chosen at 3 and 5, rejected at -1 and 1: means 4 apart, variance 1 within, so 16; in other units the same."""
    feature = torch.tensor([[[3.0], [5.0]], [[-1.0], [1.0]]])
    assert separation(feature) == 16
    assert separation(10 * feature + 3) == same(16)
    assert separation(feature.flip(0)) == 16
    assert separation(torch.stack([feature[0], feature[0]])) == 0


def test_differences_come_with_their_negatives() -> None:
    features = made()
    differences = features.differences()
    torch.testing.assert_close(differences.feature[0], features.feature[0] - features.feature[1])
    torch.testing.assert_close(differences.feature[1], -differences.feature[0])
    torch.testing.assert_close(differences.reward[0], features.reward[0] - features.reward[1])


def test_tsne_without_its_package_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.manifold", raising=False)
    with pytest.raises(ValueError, match=r"pip install .lightning-rm\[tsne\]"):
        check_projection("tsne")
    with pytest.raises(ValueError, match="projection='umap': there are pca, tsne"):
        check_projection("umap")


def test_tsne_keeps_clusters_apart_and_is_the_same_twice() -> None:
    feature = torch.cat([torch.zeros(20, 8), torch.full((20, 8), 50.0)])
    feature += torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    points = tsne(feature).points
    distances = torch.cdist(points, points)
    nearest = distances.fill_diagonal_(float("inf")).argmin(1)
    assert ((nearest < 20) == (torch.arange(40) < 20)).all()
    torch.testing.assert_close(tsne(feature).points, points)


def test_panels_show_every_point_and_join_pairs_if_asked() -> None:
    points = np.arange(12.0).reshape(2, 3, 2)
    panels = {name: Panel(points, ("across", "up"), ("line 1", "line 2")) for name in ("before", "after")}
    figure = feature_panels(panels, "title", join=True)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["before", "after"]
    for axes in figure.axes:
        lines, scatter = axes.collections
        np.testing.assert_array_equal(np.asarray(scatter.get_offsets())[0::2], points[0])
        np.testing.assert_array_equal(np.asarray(scatter.get_offsets())[1::2], points[1])
        assert [path.vertices.tolist() for path in lines.get_paths()] == points.swapaxes(0, 1).tolist()
        assert axes.get_aspect() == 1
        assert axes.get_xlabel().endswith("line 1\nline 2")
    assert [len(axes.collections) for axes in feature_panels(panels, "title").axes] == [1, 1]


@pytest.mark.parametrize("differences", [False, True])
def test_a_report_has_figures_a_table_and_every_point(tmp_path: Path, differences: bool) -> None:
    models = {"before": made(gap=0), "after": made(gap=4)}
    written = feature_report(models, tmp_path, differences=differences, join=True)
    stem = "feature_differences_pca" if differences else "features_pca"
    assert [path.name for path in written] == [
        *(f"{stem}.{suffix}" for suffix in ("png", "svg", "csv", "md")),
        f"{stem}_points.csv",
    ]
    assert all(path.stat().st_size for path in written)
    with written[2].open() as file:
        before, after = csv.DictReader(file)
    assert (before["model"], before["pairs"], before["of"]) == ("before", "30", "60")
    assert float(after["separation"]) > float(before["separation"])
    with written[4].open() as file:
        rows = list(csv.DictReader(file))
    shown = models["after"].differences() if differences else models["after"]
    plane = pca(shown.feature.flatten(0, 1)).points
    found = np.array([[float(row["x"]), float(row["y"])] for row in rows if row["model"] == "after"])
    np.testing.assert_allclose(found, plane.numpy(), rtol=1e-4, atol=1e-4)  # as many digits are written
    assert len(rows) == 2 * 60
    assert [row["row"] for row in rows[:30]] == [str(row) for row in range(30)]
    assert float(rows[-1]["reward"]) == pytest.approx(float(shown.reward[1, -1]), rel=1e-4)  # too


def test_a_panel_has_the_points_of_chosen_first_and_says_what_is_measured() -> None:
    features = made(gap=4)
    panel = panel_of(features)
    plane = pca(features.feature.flatten(0, 1))
    assert panel.points.shape == (2, 30, 2)
    np.testing.assert_array_equal(np.concatenate(panel.points), plane.points.numpy())
    assert panel.axes == plane.axes
    rank = float(effective_rank(features.feature.flatten(0, 1)))
    assert panel.lines == (
        "30 of 60 pairs, accuracy 0.600",
        f"separation {separation(features.feature):.3f}, effective rank {rank:.1f}",
    )


def test_the_command_compares_two_models_on_one_set(tmp_path: Path) -> None:
    for seed, folder in enumerate((tmp_path / "a" / "model" / "best", tmp_path / "b")):
        toy_model(seed).save_pretrained(folder, world_tokenizer())
    written = analyze(
        composed(
            f"features={{first: {tmp_path}/a, second: {tmp_path}/b}}",
            "data=synthetic",
            "data.num_test=12",
            "set=test.test",
            "max_pairs=10",
            "accelerator=cpu",
            f"out={tmp_path}/out",
            command="analyze",
        )
    )
    assert {path.name for path in written} == {f"features_pca{end}" for end in (".png", ".svg", ".csv", ".md")} | {
        "features_pca_points.csv"
    }
    with (tmp_path / "out" / "features_pca.csv").open() as file:
        assert [(row["model"], row["pairs"], row["of"]) for row in csv.DictReader(file)] == [
            ("first", "10", "12"),
            ("second", "10", "12"),
        ]


def test_models_are_called_by_what_their_paths_do_not_share(tmp_path: Path) -> None:
    for name in ("x/0", "x/1", "y/0"):
        toy_model().save_pretrained(tmp_path / name / "model" / "last", world_tokenizer())
    (tmp_path / "x" / "multirun.yaml").write_text("")
    assert list(find_models([f"{tmp_path}/x/*", f"{tmp_path}/y/0"], "last")) == ["x/0", "x/1", "y/0"]
    assert list(find_models(f"{tmp_path}/x/1", "last")) == ["1"]
    with pytest.raises(ValueError, match="not a run with weights in model/best"):
        find_models(f"{tmp_path}/x/1", "best")
    with pytest.raises(ValueError, match="weights='newest'"):
        find_models(f"{tmp_path}/x/1", "newest")


def test_features_need_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="features= needs pairs to read: add data=synthetic"):
        analyze(composed(f"features={tmp_path}", f"out={tmp_path}", command="analyze"))
