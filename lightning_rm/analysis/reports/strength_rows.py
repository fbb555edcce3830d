"""Tables of preference strength as CSV and Markdown: groups, detection of wrong labels, and examples to read.

A row is a mapping of heading to value. Only `write_table` knows files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lightning_rm.analysis.detection import Detection
from lightning_rm.analysis.strength import Groups

Conversation = str | Sequence[Mapping[str, Any]]
"""Plain text, or turns."""

MAX_CHARACTERS = 200
"""Texts of examples are cut to this length, the ellipsis included."""


def group_rows(groups: Groups) -> list[dict[str, object]]:
    """Return one row a group of strength, the weakest first (arXiv 2401.06080, figure 2)."""
    num_groups = len(groups.mean)
    bounds = [f"{100 * index / num_groups:.3g}" for index in range(num_groups + 1)]
    return [
        {
            "group (%)": f"{bounds[index]} to {bounds[index + 1]}",
            "pairs": int(groups.num_pairs[index]),
            "mean": float(groups.mean[index]),
            "std": float(groups.std[index]),
            "label right": float(groups.clean[index]),
            "gold margin": float(groups.gold_margin[index]),
        }
        for index in range(num_groups)
    ]


def detection_rows(detections: Mapping[str, Detection]) -> list[dict[str, object]]:
    """Return one row a score: how well it finds wrong labels.

    Args:
        detections: name of the score to what `detection` says of it.
    """
    return [
        {
            "score": name,
            "AUROC": result.auroc,
            "AUROC from": result.auroc_low,
            "AUROC to": result.auroc_high,
            "average precision": result.average_precision,
            "flag below": result.cut,
            "precision below": result.cut_precision,
            "recall below": result.cut_recall,
            "flag lowest share": result.lowest,
            "precision of lowest": result.lowest_precision,
            "recall of lowest": result.lowest_recall,
            "pairs": result.num_pairs,
            "wrong": result.num_wrong,
            "truth unknown": result.num_unknown,
        }
        for name, result in detections.items()
    ]


def example_rows(table: pa.Table, num: int = 3) -> list[dict[str, object]]:  # pyright: ignore[reportUnknownParameterType]
    """Return pairs to read: the weakest, those nearest 0, and the strongest (arXiv 2401.06080, table 1).

    The paper calls them incorrect, ambiguous and strong. Which they are is for the reader to see.

    Args:
        table: annotated pairs, with `strength_mean`, `strength_std`, and `prompt`, `chosen` and `rejected`, texts or
            conversations. Pairs without strength are left out.
        num: pairs of each kind; in a table without pairs around 0, two kinds may show the same pair.

    Raises:
        ValueError: if fewer than `num` pairs have strength, or `num` is not at least 1.
    """
    mean = np.asarray(table["strength_mean"], np.float64)
    order = np.argsort(mean, kind="stable")[: int((~np.isnan(mean)).sum())]  # NaN is sorted last
    if not 1 <= num <= len(order):
        raise ValueError(f"{num} examples of each kind from {len(order)} pairs with strength")
    nearest = order[np.argsort(np.abs(mean[order]), kind="stable")[:num]]
    picked = {"weakest": order[:num], "nearest 0": nearest, "strongest": order[::-1][:num]}
    return [
        {
            "pairs": kind,
            "mean": pair["strength_mean"],
            "std": pair["strength_std"],
            "prompt": _trimmed(_last_user_turn(pair["prompt"])),
            **{name: _trimmed(_said(pair[name])) for name in ("chosen", "rejected")},
        }
        for kind, indices in picked.items()
        for pair in table.take(pa.array(indices)).to_pylist()
    ]


def _said(response: Conversation) -> str:
    """Return all that a response says."""
    return response if isinstance(response, str) else " ".join(turn["content"] or "" for turn in response)


def _last_user_turn(prompt: Conversation | None) -> str:
    """Return what the user said last; empty if nothing."""
    if prompt is None or isinstance(prompt, str):
        return prompt or ""
    return next((turn["content"] for turn in reversed(prompt) if turn["role"] == "user"), None) or ""


def _trimmed(text: str) -> str:
    """Return the text on one line, cut with an ellipsis."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1].rstrip()}…"
