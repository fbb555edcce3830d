"""LLMBar (Zeng et al., arXiv 2310.07641): does a response do what was asked? One natural set, four adversarial ones.

The adversarial responses are longer and look better, so length alone does worse than chance. It knows no model.
"""

from __future__ import annotations

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, shown
from lightning_rm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Means,
    assistant,
    cluster_of,
    pair_columns,
    user,
    with_overall,
)
from lightning_rm.evaluation.benchmarks.reading import HubPart, named_in, text_of
from lightning_rm.evaluation.credit import Credit, Rule, together
from lightning_rm.evaluation.items import Floats, Item, Items

SUBSETS = {"natural": 100, "neighbor": 134, "gptinst": 92, "gptout": 47, "manual": 46}
"""Subset -> rows."""

ADVERSARIAL = ("neighbor", "gptinst", "gptout", "manual")


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return one pair: `input`, `output_1`, `output_2`, `label` 1 or 2.

    The file or folder is named after the subset.
    """
    name = str(raw.get("subset", part))
    subset = named_in(name, list(SUBSETS))
    if subset is None:
        raise RowError(BAD_VALUE, f"the path {name!r} names none of the subsets {', '.join(SUBSETS)}")
    if raw.get("label") not in (1, 2):
        raise RowError(BAD_VALUE, f"field 'label' must be 1 or 2, found {shown(raw.get('label'))}")
    prompt = text_of(raw, "input")
    return Item(
        id=origin,
        prompt=(user(prompt),),
        responses=(assistant(text_of(raw, "output_1")), assistant(text_of(raw, "output_2"))),
        gold=(1.0, 0.0) if raw["label"] == 1 else (0.0, 1.0),
        subset=subset,
        cluster=cluster_of(prompt),
        origin=origin,
    )


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return the subsets, and all pairs together."""
    found = pair_columns(items, rewards, rule)
    return {**found, "overall/micro": together(found.values())}


def combine(means: Means) -> dict[str, Floats]:
    """Return the subsets, the mean of the four adversarial ones, and of all five as `overall`."""
    sections = {subset: means[subset] for subset in SUBSETS if subset in means}
    if all(subset in sections for subset in ADVERSARIAL):
        sections["adversarial"] = np.mean([sections[subset] for subset in ADVERSARIAL], axis=0)
    sections = with_overall(sections, list(SUBSETS))
    return {**sections, "overall/micro": means["overall/micro"]}


LLMBAR = Benchmark(
    name="llmbar",
    title="LLMBar",
    aggregate="mean of five subsets",
    hub=tuple(
        HubPart(subset, "princeton-nlp/LLMBar", name, "LLMBar")
        for subset, name in (
            ("natural", "Natural"),
            ("neighbor", "Adversarial_Neighbor"),
            ("gptinst", "Adversarial_GPTInst"),
            ("gptout", "Adversarial_GPTOut"),
            ("manual", "Adversarial_Manual"),
        )
    ),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=tuple(SUBSETS),
    expected=SUBSETS,
)
