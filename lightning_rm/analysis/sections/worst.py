"""The pairs to read: those that all runs together rank most against their label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_rm.analysis.evidence import Evidence, Words
from lightning_rm.analysis.page.blocks import Block, Example, Folded, Section, Text
from lightning_rm.analysis.study import Study


def worst_section(study: Study, num_pairs: int) -> Section:
    """Return the worst pairs of each set side by side, with what every method makes of them.

    A run's margins are put over their standard deviation before they are averaged: rewards of two runs have no scale in
    common. Pairs are taken from those that a run has kept in words.

    Args:
        study: of the runs.
        num_pairs: of each set.
    """
    blocks: list[Block] = []
    sets = [name for name in study.recorded() if any(name in one.words for one in study.evidence.values())]
    names = [name for name in sets if name.startswith("test")] or sets
    for place, name in enumerate(names):
        examples = _examples(study, name, num_pairs)
        if place == 0:
            blocks += examples
        elif examples:
            blocks.append(Folded(f"{name}: the {len(examples)} worst pairs", examples))
    if not blocks:
        return Section("Pairs to read", [], "No run has kept pairs in words.")
    lead = "Where all methods disagree with the label, it may be the label that is wrong."
    return Section("Pairs to read", [Text(f"The worst of {names[0]}, over all runs."), *blocks], lead)


def _examples(study: Study, name: str, num_pairs: int) -> list[Example]:
    evidence = [one for one in study.evidence.values() if one.is_finite(name)]
    words: dict[int, Words] = {}
    for one in evidence:
        words |= one.words.get(name, {})
    total: dict[int, list[float]] = {row: [] for row in words}
    for one in evidence:
        for row, margin in _agreement(one, name).items():
            if row in total:
                total[row].append(margin)
    ranked = sorted((row for row in total if total[row]), key=lambda row: (float(np.mean(total[row])), row))
    return [_example(study, name, row, words[row]) for row in ranked[:num_pairs]]


def _agreement(one: Evidence, name: str) -> Mapping[int, float]:
    """Row -> margin towards what the label prefers, in standard deviations of the run's margins."""
    records = one.records[name]
    margin = records.margin * np.sign(records.label - 0.5)
    scale = float(records.margin.std()) or 1.0
    return dict(zip(records.row.tolist(), (margin / scale).tolist(), strict=True))


def _example(study: Study, name: str, row: int, words: Words) -> Example:
    facts: list[str] = []
    known: set[str] = set()
    for method in study.methods:
        margins: list[float] = []
        for one in study.of(method).values():
            if one.is_finite(name):
                records = one.records[name]
                for place in np.flatnonzero(records.row == row).tolist():
                    margins.append(float(records.margin[place]))
                    known.add(_label(float(records.label[place]), float(records.clean[place]), records.subset[place]))
        if margins:
            wrong = sum(margin < 0 for margin in margins)
            mean = f"{np.mean(margins):+.2f}".replace("-", "−")
            facts.append(f"{method.name}: margin {mean}, {wrong} of {len(margins)} runs prefer rejected")
    title = ": ".join(filter(None, [f"{name}, pair {words.id or row}", "; ".join(sorted(known))]))
    return Example(title, words.prompt, {"chosen": words.chosen, "rejected": words.rejected}, facts)


def _label(label: float, clean: float, subset: str) -> str:
    """Return what is known of a pair beside its text."""
    parts = [] if subset == "all" else [f"subset {subset}"]
    parts += [] if label == 1 else [f"label {label:.2f}"]
    if not np.isnan(clean) and label != 0.5:  # `clean` says which response is better, as the label does
        parts.append("the label is right" if (clean > 0.5) == (label > 0.5) else "the label is known to be wrong")
    return ", ".join(parts)
