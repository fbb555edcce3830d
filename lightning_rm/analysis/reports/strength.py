"""The report on one annotated file: tables and figures of its strengths, drawn from its columns alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightning_rm.analysis.detection import CUTS, detection, detection_scores
from lightning_rm.analysis.plots.strength import (
    agreement_by_strength,
    detection_curves,
    strength_by_group,
    strength_distribution,
)
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.analysis.reports.strength_rows import detection_rows, example_rows, group_rows
from lightning_rm.analysis.strength import agreement, correlation, grouped, u_shape
from lightning_rm.analysis.table_files import write_table
from lightning_rm.parquet_files import read_parquet
from lightning_rm.strength import vote_shares

Floats = NDArray[np.float64]

TEXTS = ("prompt", "chosen", "rejected")

NEEDED = ("strength_mean", "strength_std", "votes")

NUMBERS = ("strength_mean", "strength_std", "clean", "gold_margin")
"""Columns that are read as numbers; files of others may lack the last two, which tell the truth where it is known."""

NUM_GROUPS = 20
"""Groups of 5 %, the paper's (arXiv 2401.06080, figure 2)."""


def read_strength(path: str | Path) -> Any:
    """Return an annotated Parquet file, the columns of numbers that it lacks as unknown.

    Raises:
        ValueError: if it is none, or a column is not of numbers.
    """
    if not Path(path).is_file():
        raise ValueError(f"strength={str(path)!r}: there is no such file")
    try:
        table = read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"strength={str(path)!r} cannot be read as Parquet: {error}") from error
    if missing := [name for name in NEEDED if name not in table.column_names]:
        raise ValueError(
            f"strength={str(path)!r} has no column {', '.join(missing)}: it is not what `lightning-rm annotate` wrote"
        )
    for name in NUMBERS:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.float64()))
        elif not _is_number(found := table.schema.field(name).type):
            raise ValueError(f"strength={str(path)!r}: column {name} is of {found}, not of numbers")
        elif (far := np.flatnonzero(np.isinf(_floats(table[name])))).size:
            raise ValueError(f"strength={str(path)!r} row {far[0]}: {name} is infinite; leave it empty if unknown")
    mean, std = (_floats(table[name]) for name in NUMBERS[:2])
    if (half := np.flatnonzero(~np.isnan(mean) & np.isnan(std))).size:
        raise ValueError(
            f"strength={str(path)!r} row {half[0]} has strength_mean and no strength_std; give both or none"
        )
    votes: Any = table.schema.field("votes").type
    if not pa.types.is_null(votes) and not (_is_list(votes) and _is_number(votes.value_type)):
        raise ValueError(f"strength={str(path)!r}: column votes is of {votes}, not of lists of numbers")
    return table


def strength_report(table: Any, out: Path) -> tuple[dict[str, float], list[Path]]:
    """Write the tables (CSV, Markdown) and figures (PNG, SVG) of an annotated file.

    With known truth (`clean`: planted, or a second label) also agreement and the detection of wrong labels; with gold
    margins their correlation with strength. Fewer pairs than groups make groups of one pair.

    Args:
        table: from `read_strength`.
        out: a folder.

    Returns:
        The numbers by name, and the files. `num_without_strength` is there where a pair has none, and counts nowhere.

    Raises:
        ValueError: if no pair has strength, or the file has no texts.
    """
    if missing := [name for name in TEXTS if name not in table.column_names]:
        raise ValueError(f"the annotated pairs have no column {', '.join(missing)}, of which examples are shown")
    mean, std, clean, gold = (_floats(table[name]) for name in NUMBERS)
    has_strength = ~np.isnan(mean)
    if not has_strength.any():
        raise ValueError(f"none of {len(mean)} pairs has strength: there is nothing to report")
    votes = [row or [] for row in table["votes"].to_pylist()]
    offsets = np.cumsum([0, *map(len, votes)])
    share = vote_shares(np.array([vote for row in votes for vote in row], float), offsets)
    num_voters = max(map(len, votes))
    num_groups = min(NUM_GROUPS, int(has_strength.sum()))
    groups = grouped(mean, std, clean, gold, num_groups)
    shape = u_shape(groups)
    numbers: dict[str, float] = {
        "num_pairs": len(mean),
        **({} if has_strength.all() else {"num_without_strength": int((~has_strength).sum())}),
        "votes_a_pair": num_voters,
        "share_negative": float((mean[has_strength] < 0).mean()),
        "std_weakest": shape.weakest,
        "std_minimum": shape.minimum,
        "std_minimum_group": shape.group,
        "std_strongest": shape.strongest,
    }
    written = [
        *save_figure(strength_distribution(mean, std), out / "strength_distribution"),
        *save_figure(strength_by_group(groups), out / "strength_by_group"),
        *write_table(
            group_rows(groups), out / "groups", f"Strength by group of {100 / num_groups:.3g} %, from the weakest"
        ),
        *write_table(
            example_rows(table, min(3, num_groups)),
            out / "examples",
            "Example pairs: weakest, nearest 0, strongest",
        ),
    ]
    of_truth, files = _by_truth(mean, std, share, clean, out)
    both = ~np.isnan(gold) & ~np.isnan(mean)
    if both.sum() > 1 and np.ptp(gold[both]) > 0 and np.ptp(mean[both]) > 0:
        related = correlation(mean, gold)
        of_truth |= {"gold_pearson": related.pearson, "gold_spearman": related.spearman}
    return numbers | of_truth, [*written, *files]


def _by_truth(
    mean: Floats, std: Floats, share: Floats, clean: Floats, out: Path
) -> tuple[dict[str, float], list[Path]]:
    """Report what strength says of known truth: how often they agree, and the detection of wrong labels."""
    numbers: dict[str, float] = {}
    written: list[Path] = []
    known = ~np.isnan(clean) & ~np.isnan(mean)
    if known.sum() > 1:
        agreed = agreement(mean, clean, num_groups=min(NUM_GROUPS, int(known.sum())))
        written += save_figure(agreement_by_strength(agreed), out / "agreement_by_strength")
        numbers["agreement_weakest"], numbers["agreement_strongest"] = float(agreed.share[0]), float(agreed.share[-1])
    if 0 < (clean[known] == 0).sum() < known.sum():
        wrong = 1 - clean
        scores = detection_scores(mean, std, share)
        found = {name: detection(score, wrong, CUTS[name]) for name, score in scores.items()}
        numbers["share_wrong"] = found["mean"].num_wrong / found["mean"].num_pairs
        for name, one in found.items():
            numbers |= {f"{name}/auroc": one.auroc, f"{name}/average_precision": one.average_precision}
            numbers |= {f"{name}/auroc_low": one.auroc_low, f"{name}/auroc_high": one.auroc_high}
        written += write_table(detection_rows(found), out / "detection", "Finding wrong labels by strength")
        written += save_figure(detection_curves(scores, wrong), out / "detection")
    return numbers, written


def _floats(column: Any) -> Floats:
    """Return a column as numbers, NaN where it has none."""
    return np.asarray(column.to_pylist(), np.float64)


def _is_number(kind: Any) -> bool:
    types: Any = pa.types
    return any(is_of(kind) for is_of in (types.is_floating, types.is_integer, types.is_boolean, types.is_null))


def _is_list(kind: Any) -> bool:
    types: Any = pa.types
    return any(is_of(kind) for is_of in (types.is_list, types.is_large_list, types.is_fixed_size_list))
