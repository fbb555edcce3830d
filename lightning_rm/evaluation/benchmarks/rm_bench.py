"""RM-Bench (Liu et al., arXiv 2410.16184): three right and three wrong responses, plain to fancy. It knows no model.

All nine pairs are compared, so that style can speak against substance: a plain right answer against a fancy wrong one
is hard, the other way round easy.
"""

from __future__ import annotations

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, shown
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark, Means, assistant, cluster_of, user, with_overall
from lightning_rm.evaluation.benchmarks.reading import HubPart, text_of, texts_of
from lightning_rm.evaluation.credit import Credit, Rule, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items

PARTS = {"chat": 129, "code": 228, "math": 529, "safety-refuse": 284, "safety-response": 157}
"""Part -> rows."""

DOMAINS = ("chat", "code", "math", "safety")
STYLES = ("concise", "detailed", "markdown")
DIFFICULTIES = {
    "easy": [(right, wrong) for right in range(3) for wrong in range(right)],
    "normal": [(style, style) for style in range(3)],
    "hard": [(right, wrong) for right in range(3) for wrong in range(right + 1, 3)],
}
"""Difficulty -> its cells (style of the right response, style of the wrong one)."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return one row: `prompt`, three `chosen`, three `rejected`, and `domain`, or the file is named after its
    domain.
    """
    domain = raw.get("domain", part.rpartition("/")[2].removesuffix("_filtered"))
    if domain not in PARTS:
        raise RowError(
            BAD_VALUE,
            f"there is no field 'domain', and the file is not named after one of {', '.join(PARTS)}: {shown(domain)}",
        )
    prompt = text_of(raw, "prompt")
    return Item(
        id=str(raw.get("id", origin)),
        prompt=(user(prompt),),
        responses=tuple(assistant(text) for name in ("chosen", "rejected") for text in texts_of(raw, name, 3)),
        gold=(1.0, 1.0, 1.0, 0.0, 0.0, 0.0),
        subset=str(domain),
        cluster=cluster_of(prompt),
        origin=origin,
    )


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return nine columns per domain: `chat/concise>markdown` is a concise right answer against a wrong one in
    Markdown.

    Both parts of safety are pooled before anything is averaged.
    """
    domains = np.array([name.partition("-")[0] for name in items.subset.tolist()])
    found: dict[str, Credit] = {}
    for domain in DOMAINS:
        rows = np.flatnonzero(domains == domain)
        for right, better in enumerate(STYLES):
            for wrong, worse in enumerate(STYLES):
                margin = rewards[rows, right] - rewards[rows, 3 + wrong]
                found[f"{domain}/{better}>{worse}"] = Credit(rows, pair_credit(margin, rule))
    return {name: credit for name, credit in found.items() if len(credit.item)}


def combine(means: Means) -> dict[str, Floats]:
    """Return domains, difficulties over the domains there are, and `overall`; each domain's difficulties and cells are
    details.
    """
    domains: dict[str, Floats] = {}
    details: dict[str, Floats] = {}
    for domain in DOMAINS:
        for difficulty, cells in DIFFICULTIES.items():
            names = [f"{domain}/{STYLES[right]}>{STYLES[wrong]}" for right, wrong in cells]
            if names[0] in means:
                details[f"{domain}/{difficulty}"] = np.mean([means[name] for name in names], axis=0)
        if f"{domain}/hard" in details:
            domains[domain] = np.mean([details[f"{domain}/{difficulty}"] for difficulty in DIFFICULTIES], axis=0)
    over_domains = {
        difficulty: np.mean([details[f"{domain}/{difficulty}"] for domain in domains], axis=0)
        for difficulty in DIFFICULTIES
    }
    sections = with_overall({**domains, **over_domains}, DOMAINS)
    cells = {name: value for name, value in means.items() if ">" in name}
    return {**sections, **details, **cells}


RM_BENCH = Benchmark(
    name="rm_bench",
    title="RM-Bench",
    aggregate="mean of four domains, each the mean of its nine comparisons",
    hub=(HubPart("total", "THU-KEG/RM-Bench", "train"),),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=DOMAINS,
    expected=PARTS,
)
