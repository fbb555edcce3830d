"""JudgeBench (Tan et al., arXiv 2410.12784): pairs of one model's answers, one of them objectively wrong.

It knows no model. The rule for reward models (`--single_game`): "A>B" if A's reward is higher, else "B>A", so that an
exact tie counts as "B>A". If both orders are judged, a tie is wrong: that is `strict`.
"""

from __future__ import annotations

import numpy as np

from lightning_rm.data.formats.fields import Raw, has
from lightning_rm.evaluation.benchmarks.benchmark import OVERALL, Benchmark, Means, assistant, cluster_of, user
from lightning_rm.evaluation.benchmarks.reading import HubPart, one_of, text_of
from lightning_rm.evaluation.credit import Credit, Rule, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items

CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "code",
}
"""The beginning of a row's source -> its category."""

SPLITS = {"gpt": (154, 98, 56, 42), "claude": (154, 51, 34, 31)}
"""Split, by who wrote the answers -> rows of each category."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return one pair: `question`, `response_A`, `response_B`, `label` (A>B or B>A), `source`, `response_model`."""
    source = text_of(raw, "source")
    category = next((name for start, name in CATEGORIES.items() if source.startswith(start)), None)
    one_of(category, list(CATEGORIES.values()), f"the category of source {source!r}")
    label = one_of(raw.get("label"), ("A>B", "B>A"), "field 'label'")
    model = str(raw.get("response_model", part)).lower()
    split = "claude" if "claude" in model else "gpt"
    question = text_of(raw, "question")
    return Item(
        id=str(raw.get("pair_id", origin)),
        prompt=(user(question),),
        responses=(assistant(text_of(raw, "response_A")), assistant(text_of(raw, "response_B"))),
        gold=(1.0, 0.0) if label == "A>B" else (0.0, 1.0),
        subset=f"{split}/{category}",
        cluster=str(raw["original_id"]) if has(raw, "original_id") else cluster_of(question),
        origin=origin,
    )


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return each split as a whole and by category."""
    margin = items.comparisons.margins(rewards)
    credit = pair_credit(margin, rule)
    if rule == "own":
        credit = np.where(margin == 0, items.gold[:, 1], credit)
    found: dict[str, Credit] = {}
    for split in SPLITS:
        for name in (split, *(f"{split}/{category}" for category in CATEGORIES.values())):
            rows = np.flatnonzero(np.char.startswith(items.subset, name))
            if len(rows):
                found[name] = Credit(rows, credit[rows])
    return found


def combine(means: Means) -> dict[str, Floats]:
    """Return the GPT split's categories and, as `overall`, the mean over its pairs; the same mean of Claude's split."""
    sections = {category: means[f"gpt/{category}"] for category in CATEGORIES.values() if f"gpt/{category}" in means}
    if "gpt" in means:
        sections[OVERALL] = means["gpt"]
    if "claude" in means:
        sections["claude"] = means["claude"]
    names = [f"gpt/{category}" for category in CATEGORIES.values()]
    macro = {"overall/macro": np.mean([means[name] for name in names], axis=0)} if set(names) <= set(means) else {}
    return {**sections, **macro, **{name: means[name] for name in means if name.startswith("claude/")}}


JUDGEBENCH = Benchmark(
    name="judgebench",
    title="JudgeBench",
    aggregate="mean over the pairs of the GPT split (single game)",
    hub=tuple(HubPart(split, "ScalerLab/JudgeBench", split) for split in SPLITS),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=tuple(CATEGORIES.values()),
    expected={
        f"{split}/{category}": number
        for split, numbers in SPLITS.items()
        for category, number in zip(CATEGORIES.values(), numbers, strict=True)
    },
)
