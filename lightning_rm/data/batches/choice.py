"""`layout=auto`: the layout that a backbone and the data call for, and why.

The share of tokens that common beginnings save is measured on the data, not guessed from its kind. It knows tokenised
pairs and layouts; no model beyond what it is told of one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lightning_rm.data.batches.layouts import layout_of
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.options import check_words
from lightning_rm.tokens import LayoutName

LayoutSetting = LayoutName | Literal["auto"]
"""What a user may ask for."""

WORTH_SHARING = 0.05
"""The least share of tokens saved that is worth attention calls of its own for prompts and responses."""

MEASURED_PAIRS = 500


@dataclass(frozen=True)
class Choice:
    """A layout, and in words why it was taken."""

    layout: LayoutName
    reason: str


def choose_layout(
    setting: LayoutSetting,
    fast: Collection[LayoutName],
    pairs: PairDataset | None = None,
    steady_tokens: int | None = None,
) -> Choice:
    """Return the layout that was asked for, and for `auto` the one that computes the fewest tokens.

    Args:
        setting: a layout, or `auto`.
        fast: the layouts that the backbone honours at no cost: its `fast_layouts`.
        pairs: the pairs that are read; for `auto` up to 500 of them, evenly spaced, are measured. None for responses,
            where all that is known is that several answer one prompt.
        steady_tokens: of the model's `Reading`.

    Raises:
        ValueError: if there is no such layout.
    """
    check_words(("auto", *get_args(LayoutName)), layout=setting)
    if setting != "auto":
        return Choice(setting, "asked for")
    if "packed" not in fast:
        reason = (
            "here padding is cheaper: the backbone is small, or its attention has no fast way to keep sequences apart"
        )
        return Choice("padded", reason)
    if "shared_prefix" not in fast:
        reason = "no padding; this backbone's tokens see what follows them, so that two responses have two prompts"
        return Choice("packed", reason)
    if pairs is None:
        return Choice("shared_prefix", "no padding, and the prompt of several responses is computed once")
    saved = saved_by_sharing(pairs, steady_tokens)
    if saved < WORTH_SHARING:
        return Choice("packed", f"no padding; a common beginning would save only {saved:.1%} of the tokens of a pair")
    return Choice("shared_prefix", f"no padding, and the common beginning of a pair saves {saved:.0%} of its tokens")


def saved_by_sharing(pairs: PairDataset, steady_tokens: int | None) -> float:
    """Return the share of a pair's tokens, on average, that need not be computed where a common beginning is computed
    once, but between sequences of more than `steady_tokens` and others.
    """
    rows = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MEASURED_PAIRS), dtype=int))
    samples = [pairs.sample(row) for row in rows.tolist()]
    whole, shared = (
        sum(layout([sample], "last", 0).num_tokens for sample in samples)
        for layout in (layout_of("packed"), layout_of("shared_prefix", steady_tokens))
    )
    return 1 - shared / whole
