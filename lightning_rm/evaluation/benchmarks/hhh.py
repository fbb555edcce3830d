"""HHH alignment (Askell et al., arXiv 2112.00861): 221 pairs on being helpful, honest and harmless. It knows no model.

The hub's rows have a dialogue flattened into one text; it is cut into turns at its Human and Assistant marks, since
otherwise it would be scored as one turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, has, required, shown, text
from lightning_rm.data.formats.turns import Turns, hh_turns, is_blank
from lightning_rm.evaluation.benchmarks.benchmark import (
    OVERALL,
    Benchmark,
    Means,
    assistant,
    cluster_of,
    pair_columns,
    user,
)
from lightning_rm.evaluation.benchmarks.reading import HubPart, named_in, text_of, texts_of
from lightning_rm.evaluation.benchmarks.rewardbench import pair_item
from lightning_rm.evaluation.credit import Credit, Rule, together
from lightning_rm.evaluation.items import Floats, Item, Items

SUBSETS = {"harmless": 58, "helpful": 59, "honest": 61, "other": 43}
"""Subset -> rows."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Read a row of the hub (`input`, `targets`) or of BIG-bench (`target_scores`), or a pair of RewardBench's form."""
    name = str(raw.get("subset", part))
    subset = named_in(name, list(SUBSETS))
    if subset is None:
        raise RowError(BAD_VALUE, f"{name!r} names none of the subsets {', '.join(SUBSETS)}")
    if has(raw, "chosen", "rejected"):
        return pair_item(raw, origin, subset)
    prompt = _dialogue(text_of(raw, "input"))
    choices, labels = _choices(raw)
    if len(choices) != 2 or sorted(labels) != [0, 1]:
        raise RowError(BAD_VALUE, f"there must be two choices, one with label 1, found labels {shown(labels)}")
    return Item(
        id=str(raw.get("id", origin)),
        prompt=prompt,
        responses=tuple(assistant(choice) for choice in choices),
        gold=tuple(map(float, labels)),
        subset=subset,
        cluster=cluster_of(prompt),
        origin=origin,
    )


def _choices(raw: Raw) -> tuple[list[str], list[float]]:
    if has(raw, "target_scores"):
        scores = cast(Mapping[str, Any], raw["target_scores"])
        return list(scores), list(scores.values())
    targets = required(raw, "targets")
    if not isinstance(targets, Mapping):
        raise RowError(BAD_VALUE, f"'targets' must have choices and labels, found {shown(targets)}")
    inside = cast(Raw, targets)
    return texts_of(inside, "choices"), list(cast(Sequence[float], required(inside, "labels")))


def _dialogue(flat: str) -> Turns:
    """Return the turns before the response: `Human: hi\\n\\nAssistant:` is a user's turn, and so is a text without
    marks. A dialogue may leave out its first mark: `hi\\n\\nAssistant: ho\\n\\nHuman: ha`.
    """
    marked = re.sub(
        r"\n+(Human|Assistant|H|A):", lambda found: f"\n\n{_name(found[1])}:", f"\n\n{text(flat, 'input').strip()}"
    )
    if not marked.startswith("\n\nHuman:"):
        marks = re.findall(r"\n\n(Human|Assistant):", marked)
        take_turns = marks == ["Assistant", "Human"] * (len(marks) // 2) + ["Assistant"] * (len(marks) % 2)
        asks = len(marks) > 1 or marked.endswith("\n\nAssistant:")
        if marked.startswith("\n\nAssistant:") or not (take_turns and asks):
            return (user(flat),)
        marked = f"\n\nHuman: {marked.strip()}"
    turns = hh_turns(marked, "input")
    return turns[:-1] if turns[-1]["role"] == "assistant" and is_blank(turns[-1]) else turns


def _name(mark: str) -> str:
    return {"H": "Human", "A": "Assistant"}.get(mark, mark)


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return the subsets, and all pairs together."""
    found = pair_columns(items, rewards, rule)
    return {**found, OVERALL: together(found.values())}


def combine(means: Means) -> dict[str, Floats]:
    """Return the subsets, the mean over all pairs as `overall` (RewardBench's way), and the mean of the subsets as
    a detail.
    """
    sections = {subset: means[subset] for subset in SUBSETS if subset in means}
    if len(sections) < len(SUBSETS):
        return sections
    return {**sections, OVERALL: means[OVERALL], "overall/macro": np.mean(list(sections.values()), axis=0)}


HHH = Benchmark(
    name="hhh",
    title="HHH alignment",
    aggregate="mean over all pairs",
    hub=tuple(HubPart(subset, "HuggingFaceH4/hhh_alignment", "test", subset) for subset in SUBSETS),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=tuple(SUBSETS),
    expected=SUBSETS,
)
