"""Any preference file as a benchmark: pairs of any format, or lists of scored responses, by subset. It knows rows, and
no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

import numpy as np

from lightning_rm.data.rows import EXPECTED_REASONS, TIE, BadRow, GroupRow, GroupSource, PairRow, Source
from lightning_rm.evaluation.benchmarks.benchmark import MEAN, OVERALL, Benchmark, Means
from lightning_rm.evaluation.credit import Credit, Rule, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items
from lightning_rm.options import check_words


def pair_items(source: Source | GroupSource, on_bad_row: str = "error") -> tuple[Items, dict[str, int]]:
    """Return the pairs of a source as items, and how many rows were left out for which reason.

    Args:
        source: pair rows, good and bad; or rows of scored responses, each an item whose pairs are those of its
            responses that differ in their mean score.
        on_bad_row: `error`, or `drop`: left out and counted.

    Raises:
        ValueError: for a bad row, or if no pair is left.
    """
    check_words(("error", "drop"), on_bad_row=on_bad_row)
    items: list[Item] = []
    reasons: dict[str, int] = {}
    rows: Iterable[PairRow | GroupRow | BadRow] = source
    for row in rows:
        if isinstance(row, BadRow):
            if on_bad_row == "error" and row.reason not in EXPECTED_REASONS:
                raise ValueError(f"{row.origin}: {row.reason}: {row.detail} (on_bad_row=drop leaves such rows out)")
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
        elif reason := _says_nothing(row):
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            items.append(_item(row) if isinstance(row, PairRow) else _list(row))
    if not items:
        raise ValueError("; ".join(["the data hold no pair to measure on", *left_out(reasons)]))
    return Items(items), reasons


def left_out(reasons: Mapping[str, int]) -> list[str]:
    """Return notes on the rows that were left out of a data set, by reason."""
    return [f"{number:,} rows left out: {reason}" for reason, number in reasons.items()]


def _item(row: PairRow) -> Item:
    facts = {"strength": row.strength_mean} if row.strength_mean is not None else {}
    if row.clean is not None:
        facts["clean"] = float(row.clean)
    return Item(
        id=row.id,
        prompt=row.prompt,
        responses=(row.chosen, row.rejected),
        gold=(row.label, 1 - row.label),
        subset=row.subset,
        cluster=row.prompt_id,
        origin=row.place,
        facts=facts,
        tools=row.tools,
        chat_template_kwargs=row.chat_template_kwargs,
    )


def _list(row: GroupRow) -> Item:
    """Return a list of scored responses; its gold is the place of each score among them, from 0, not the score."""
    scores = _means(row)
    places = sorted(set(scores))
    return Item(
        id=row.id,
        prompt=row.prompt,
        responses=row.responses,
        gold=tuple(float(places.index(score)) for score in scores),
        subset=row.subset,
        cluster=row.prompt_id,
        origin=row.place,
        tools=row.tools,
        chat_template_kwargs=row.chat_template_kwargs,
    )


def _means(row: GroupRow) -> list[float]:
    return [fmean(scores.values()) for scores in row.scores]


def _says_nothing(row: PairRow | GroupRow) -> str:
    """Return why no two responses of a row can be compared; empty where they can."""
    if isinstance(row, PairRow):
        return TIE if row.tied else "label of 1/2" if row.label == 0.5 else ""
    if not row.scores:
        return "responses without scores"
    if len(row.responses) == 1:
        return "one response, without another to compare it with"
    return TIE if len(set(_means(row))) == 1 else ""


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return all pairs, and each subset where there are several."""
    comparisons = items.comparisons
    credit = pair_credit(comparisons.margins(rewards), rule)
    found = {OVERALL: Credit(comparisons.item, credit)}
    sections, subsets = section_of(items), items.subset[comparisons.item]
    for subset, section in sections.items() if len(sections) > 1 else ():
        rows = np.flatnonzero(subsets == subset)
        found[section] = Credit(comparisons.item[rows], credit[rows])
    return found


def section_of(items: Items) -> dict[str, str]:
    """Return subset -> its section, in order of name: without a slash, which would make it a detail of another, and
    not by the name of a figure over all subsets or of another subset.

    `a/b` is `a.b`, and `overall` is `overall (subset)`.
    """
    sections: dict[str, str] = {}
    for subset in items.rows_of:
        section = subset.replace("/", ".")
        while section in (OVERALL, MEAN, *sections.values()):
            section += " (subset)"
        sections[subset] = section
    return sections


def combine(means: Means) -> dict[str, Floats]:
    """Return subsets, and the accuracy over all pairs as `overall`."""
    return {**{name: mean for name, mean in means.items() if name != OVERALL}, OVERALL: means[OVERALL]}


def preference_benchmark(name: str, items: Items) -> Benchmark:
    """Return a preference file as a benchmark; its items have been read already, by `pair_items`."""

    def read_row(part: str, raw: object, origin: str) -> Item:
        raise ValueError(f"{name} is read as a preference file")

    subsets = list(section_of(items).values())
    return Benchmark(
        name=name,
        title=name,
        aggregate="accuracy over pairs",
        hub=(),
        read_row=read_row,
        columns=columns,
        combine=combine,
        categories=tuple(subsets) if len(subsets) > 1 else (),
    )
