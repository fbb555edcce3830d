"""The report on features: a figure of every model side by side, its points, and a table of what is measured of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from lightning_rm.analysis.features import PROJECTIONS, Features, check_projection, separation
from lightning_rm.analysis.plots.features import Panel, feature_panels
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.analysis.table_files import write_table
from lightning_rm.drafts import draft_of
from lightning_rm.losses.geometry import effective_rank

TITLES = {"pca": "PCA", "tsne": "t-SNE"}
"""Projection -> what it is called above a figure."""


def feature_report(
    models: Mapping[str, Features],
    out: Path,
    projection: str = "pca",
    *,
    differences: bool = False,
    join: bool = False,
) -> list[Path]:
    """Draw the features of chosen and rejected responses (arXiv 2401.06080, figure 11).

    `separation` and `effective rank` are of the features themselves, not of their projection.

    Args:
        models: name of the model to what it makes of the pairs; each is projected for itself.
        out: a folder.
        projection: a key of `PROJECTIONS`.
        differences: draw `f(chosen) - f(rejected)` and its negative instead.
        join: whether a line joins the two points of each pair.

    Returns:
        The figure (PNG, SVG), the table (CSV, Markdown) and the points (CSV).

    Raises:
        ValueError: if the projection is unknown, or cannot be had.
    """
    check_projection(projection)
    if differences:
        models = {name: features.differences() for name, features in models.items()}
        what, stem, kinds = "Feature differences", "feature_differences", ("chosen − rejected", "rejected − chosen")
    else:
        what, stem, kinds = "Features", "features", ("chosen", "rejected")
    panels = {name: panel_of(one, projection) for name, one in models.items()}
    rows: list[dict[str, object]] = [{"model": name, **_measures(one)} for name, one in models.items()]
    path = out / f"{stem}_{projection}"
    return [
        *save_figure(feature_panels(panels, f"{what} in two dimensions by {TITLES[projection]}", kinds, join), path),
        *write_table(rows, path, f"{what} of chosen and rejected responses"),
        _write_points(models, panels, kinds, path.with_name(f"{path.name}_points.csv")),
    ]


def panel_of(features: Features, projection: str = "pca") -> Panel:
    """Return one model's pairs in a plane, with what is measured of their features beneath.

    Args:
        features: of the pairs, projected for themselves.
        projection: a key of `PROJECTIONS`.
    """
    plane, measured = PROJECTIONS[projection](features.feature.flatten(0, 1)), _measures(features)
    return Panel(
        plane.points.reshape(2, -1, 2).numpy(),
        plane.axes,
        (
            f"{measured['pairs']:,} of {measured['of']:,} pairs, accuracy {measured['accuracy']:.3f}",
            f"separation {measured['separation']:.3f}, effective rank {measured['effective rank']:.1f}",
        ),
    )


def _measures(features: Features) -> dict[str, float]:
    """Return what is said of features beside their figure, by name."""
    return {
        "pairs": len(features.row),
        "of": features.num_available,
        "accuracy": features.accuracy,
        "separation": separation(features.feature),
        "effective rank": float(effective_rank(features.feature.flatten(0, -2))),
    }


def _write_points(
    models: Mapping[str, Features], panels: Mapping[str, Panel], kinds: tuple[str, str], path: Path
) -> Path:
    """Write one line a point: its model, the pair's row in the data set, its kind, where it lies, its reward or
    margin.
    """
    with draft_of(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "row", "kind", "x", "y", "reward"])
        for name, one in models.items():
            for kind, points, rewards in zip(kinds, panels[name].points, one.reward, strict=True):
                for row, (x, y), reward in zip(one.row.tolist(), points.tolist(), rewards.tolist(), strict=True):
                    writer.writerow([name, row, kind, f"{x:.6g}", f"{y:.6g}", f"{reward:.6g}"])
    return path
