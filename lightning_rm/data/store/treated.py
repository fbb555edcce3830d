"""A training set under treatments: pairs flipped, smoothed, given margins and weights, or left out, and counted.

What the treatments do is `strength`'s; this file applies them to tokenised pairs and writes down what became of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.strength import ById, Target, Targets, Treatment, changed

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
        ValueError: if no pair is annotated, none is left, or a treatment gives anything but targets of all pairs.
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
        # A copy: one that writes into what it is given would change what it is compared with.
        last, after = after, of_all(pairs.strength, deepcopy(after))
        check_made(name, after, len(pairs))
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


def check_made(name: str, made: object, num_pairs: int) -> None:
    """Check what a treatment has given: targets of all pairs, which a loss can take.

    Raises:
        ValueError: if it is anything else, or a pair that is kept has a label, margin or weight that is no number, or a
            weight below 0.
    """
    told = f"treatment {name} has to return Targets of all {num_pairs:,} pairs, as replace(targets, weight=...) makes"
    if not isinstance(made, Targets):
        raise ValueError(f"{told} them; it returned an object of the type {type(made).__name__}")
    for field in fields(made):
        values: object = getattr(made, field.name)
        if not isinstance(values, np.ndarray):
            raise ValueError(f"{told} them; its {field.name} is of the type {type(values).__name__}")
        kind = "boolean" if field.name in ("flipped", "kept") else "number"
        if values.shape != (num_pairs,) or (values.dtype == bool) != (kind == "boolean"):
            raise ValueError(
                f"{told} them; its {field.name} is of {values.dtype} in the shape {values.shape}, not a {kind} for each"
            )
    for field, values in (("label", made.label), ("margin", made.margin), ("weight", made.weight)):
        wrong = made.kept & (~np.isfinite(values) | ((values < 0) if field == "weight" else False))
        if wrong.any():
            raise ValueError(
                f"treatment {name} gives {int(wrong.sum()):,} of {num_pairs:,} pairs a {field} that trains nothing, "
                f"the first of them {values[wrong][0]}; leave them out with kept=False, or give a finite number"
                + (", 0 or more" * (field == "weight"))
            )


def named_treatments(
    treatments: Mapping[str, Treatment | ById] | Sequence[Treatment | ById],
) -> dict[str, Treatment | ById]:
    """Name treatments: in a list, each is named after its function and its place."""
    way_out = "give functions such as those of lightning_rm.strength, as [partial(flip, below_quantile=0.1)]"
    if isinstance(treatments, str):
        raise ValueError(f"treatments is the text {treatments!r}; {way_out}")
    if isinstance(treatments, ById) or callable(treatments):
        raise ValueError(f"treatments is {_function_name(treatments)} alone; {way_out}")
    for treatment in treatments.values() if isinstance(treatments, Mapping) else treatments:
        if not (isinstance(treatment, ById) or callable(treatment)):
            raise ValueError(f"treatments holds {treatment!r}; {way_out}")
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
