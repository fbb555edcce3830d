"""RewardBench (Lambert et al., arXiv 2403.13787): 2,985 pairs in 23 subsets and four sections. It knows no model."""

from __future__ import annotations

import numpy as np

from lightning_rm.data.formats.fields import Raw, required
from lightning_rm.data.formats.turns import read_turns
from lightning_rm.evaluation.benchmarks.benchmark import (
    OVERALL,
    Benchmark,
    Means,
    assistant,
    cluster_of,
    pair_columns,
    with_overall,
)
from lightning_rm.evaluation.benchmarks.reading import HubPart, one_of, text_of
from lightning_rm.evaluation.items import Floats, Item

SECTIONS: dict[str, dict[str, int]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,  # 447 rows, weighted so that mathematics counts as much as code
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""Section -> subset -> its weight in the section's mean, as the benchmark's own code fixes them."""

PRIOR = ("anthropic_helpful", "anthropic_hhh", "shp", "summarize")
"""Earlier test sets, whose plain mean the first leaderboard added at half weight."""

SUBSETS = {subset: weight for subsets in SECTIONS.values() for subset, weight in subsets.items()}
SPELLED = {"mt-bench-medium": "mt-bench-med"}
"""Names of the data card that the data do not use."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return one pair: `prompt`, `chosen`, `rejected`, `subset`."""
    subset = raw.get("subset", part)
    subset = one_of(SPELLED.get(str(subset), subset), [*SUBSETS, *PRIOR], "field 'subset'")
    return pair_item(raw, origin, subset)


def pair_item(raw: Raw, origin: str, subset: str, cluster: str | None = None) -> Item:
    """Return a pair in RewardBench's form, which many others use: a prompt as text or turns, and two responses as
    texts.
    """
    prompt = read_turns(required(raw, "prompt"), "prompt", "user")
    return Item(
        id=str(raw.get("id", origin)),
        prompt=prompt,
        responses=(assistant(text_of(raw, "chosen")), assistant(text_of(raw, "rejected"))),
        gold=(1.0, 0.0),
        subset=subset,
        cluster=cluster or cluster_of(prompt),
        origin=origin,
    )


def section_scores(accuracies: Means) -> dict[str, Floats]:
    """Return sections by their weights over the subsets that are there; the benchmark's own code counts an absent one
    as 0.

    `alpacaeval-easy` .9 and `mt-bench-easy` .5 alone make Chat (100 * .9 + 28 * .5) / 128 = .8125.
    """
    sections: dict[str, Floats] = {}
    for section, weights in SECTIONS.items():
        found = {subset: weight for subset, weight in weights.items() if subset in accuracies}
        if found:
            total = sum(weight * accuracies[subset] for subset, weight in found.items())
            sections[section] = np.asarray(total / sum(found.values()))
    return sections


def leaderboard_with_prior(sections: Means, prior: Floats | float) -> Floats:
    """Return the first leaderboard's mean: four sections at full weight and the prior sets at half."""
    return np.asarray((2 * sum(sections[name] for name in SECTIONS) + prior) / 9)


def combine(means: Means) -> dict[str, Floats]:
    """Return sections, their plain mean as `overall`, and the subsets as details."""
    sections = with_overall(section_scores(means), list(SECTIONS))
    details = {
        f"{section}/{subset}": means[subset]
        for section, subsets in SECTIONS.items()
        for subset in subsets
        if subset in means
    }
    prior = {f"Prior/{name}": means[name] for name in PRIOR if name in means}
    if prior:
        mean = np.mean(list(prior.values()), axis=0)
        details |= {"Prior/mean": mean, **prior}
        if OVERALL in sections:
            details["overall/with prior"] = leaderboard_with_prior(sections, mean)
    return {**sections, **details}


REWARDBENCH = Benchmark(
    name="rewardbench",
    title="RewardBench",
    aggregate="mean of four sections, subsets weighted within them",
    hub=(HubPart("filtered", "allenai/reward-bench", "filtered"),),
    read_row=read_row,
    columns=pair_columns,
    combine=combine,
    categories=tuple(SECTIONS),
    expected={**SUBSETS, "math-prm": 447},
)
