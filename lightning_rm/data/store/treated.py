"""A training set under treatments: pairs flipped, smoothed, given margins and weights, or left out, and counted.

What the treatments do is `strength`'s; this file applies them to tokenised pairs and writes down what became of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.strength import ById, Target, Treatment, changed

LEFT_OUT = "left out by treatment"
FLIPPED = "label flipped"
SMOOTHED = "label softened"
MARGIN = "target margin"
WEIGHTED = "weighted"


def treated(pairs: PairDataset, treatments: Mapping[str, Treatment | ById]) -> PairDataset:
    """Return the pairs with the targets that the treatments give them, in their order.

    Args:
        pairs: annotated pairs.
        treatments: name -> treatment; the names stand in the report.

    Raises:
        ValueError: if no pair is annotated, or none is left.
    """
    if not treatments:
        return pairs
    names = ", ".join(treatments)
    by_strength = [treatment for treatment in treatments.values() if not isinstance(treatment, ById)]
    if by_strength and np.isnan(pairs.strength.mean).all():
        raise ValueError(
            f"{pairs.name}: treatment={names} is by preference strength, and no pair has one; train voters and write "
            "them with `lightning-rm annotate`, then train on the file that it writes"
        )
    before = pairs.targets()
    ids = [] if len(by_strength) == len(treatments) else pairs.ids()
    after, made_by = before, dict[Target, list[str]]()
    for name, treatment in treatments.items():
        of_all = treatment.of(ids) if isinstance(treatment, ById) else treatment
        last, after = after, of_all(pairs.strength, after)
        for target in changed(last, after):
            made_by.setdefault(target, []).append(name)
    if not after.kept.any():
        raise ValueError(f"{pairs.name}: {names} leave no pair of {len(pairs):,}; change their ranges")
    result = pairs.treated(after)
    result.changed = made_by
    num_dropped = int((~after.kept).sum())
    counts = {
        FLIPPED: after.flipped,
        SMOOTHED: (after.label != before.label) & ~(after.flipped & (after.label == 1 - before.label)),
        MARGIN: after.margin != before.margin,
        WEIGHTED: after.weight != before.weight,
    }
    changes = {name: int((mask & after.kept).sum()) for name, mask in counts.items()}
    known = ~np.isnan(pairs.strength.mean)
    note = f"{pairs.name}: {names}; strengths of {int(known.sum()):,} pairs"
    if known.any():
        note += f", {float((pairs.strength.mean[known] < 0).mean()):.1%} of them negative"
    report = pairs.report
    result.report = replace(
        report,
        kept=report.kept - num_dropped,
        reasons=report.reasons | ({LEFT_OUT: num_dropped} if num_dropped else {}),
        changes=report.changes | {name: count for name, count in changes.items() if count},
        notes=[*report.notes, note],
    )
    return result


def named_treatments(
    treatments: Mapping[str, Treatment | ById] | Sequence[Treatment | ById],
) -> dict[str, Treatment | ById]:
    """Name treatments: in a list, each is named after its function and its place."""
    if isinstance(treatments, str):
        raise ValueError(
            f"treatments is the text {treatments!r}; give functions of lightning_rm.strength, as "
            "[partial(flip, below_quantile=0.1)]"
        )
    if isinstance(treatments, Mapping):
        return dict(treatments)
    return {f"{place + 1}. {_function_name(treatment)}": treatment for place, treatment in enumerate(treatments)}


def in_words(treatments: Collection[Treatment | ById]) -> str | None:
    """Name treatments and options, `1. flip(below_quantile=0.1), 2. adaptive_margin(scale=1.0)`; None for none."""
    named = named_treatments(list(treatments)).items()
    return ", ".join(f"{name}({_options(treatment)})" for name, treatment in named) or None


def _options(treatment: Treatment | ById) -> str:
    options: dict[str, Any] = vars(treatment) if isinstance(treatment, ById) else {}
    options |= treatment.keywords if isinstance(treatment, partial) else {}
    return ", ".join(f"{name}={value!r}" for name, value in sorted(options.items()))


def _function_name(treatment: Treatment | ById) -> str:
    function: Any = treatment.func if isinstance(treatment, partial) else treatment
    return str(getattr(function, "__name__", type(function).__name__))
