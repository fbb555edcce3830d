"""RewardBench 2 (Malik et al., arXiv 2506.01937): five domains of best of four, and Ties. It knows no model.

Ties asks that all right answers score above all wrong ones, and that they lie closer to one another than to the best
wrong one. Its score is not a mean over rows, but a sum of five means.
"""

from __future__ import annotations

import re
from typing import cast

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, number, required, shown
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark, Means, assistant, cluster_of, user, with_overall
from lightning_rm.evaluation.benchmarks.reading import HubPart, one_of, text_of, texts_of
from lightning_rm.evaluation.credit import Credit, Rule, best_credit, by_subset
from lightning_rm.evaluation.items import Floats, Item, Items

DOMAINS = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102}
"""Domain -> rows."""

TIES = "Ties"
TIES_WEIGHTS = {"tied": 0.30, "ref": 0.30, "pref": 0.20, "hard": 0.20, "bonus": 0.01}
"""What each of the five means adds to the score of Ties; see `ties_columns`."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return one row: `prompt`, lists `chosen` and `rejected`, `subset`; `num_correct` must agree with the lists."""
    subset = one_of(raw.get("subset"), list(DOMAINS), "field 'subset'")
    chosen, rejected = texts_of(raw, "chosen"), texts_of(raw, "rejected")
    if not chosen or not rejected:
        raise RowError(BAD_VALUE, f"{len(chosen)} right and {len(rejected)} wrong answers; it needs one of each")
    if raw.get("num_correct") is not None and number(raw["num_correct"], "num_correct") != len(chosen):
        raise RowError(BAD_VALUE, f"num_correct is {raw['num_correct']}, and 'chosen' has {len(chosen)}")
    name, prompt = str(required(raw, "id")), text_of(raw, "prompt")
    facts: dict[str, str | int] = {}
    cluster = cluster_of(prompt)
    if subset == TIES:
        found = re.fullmatch(r"(ref|tied):(\d+)", name)
        if found is None:
            raise RowError(BAD_VALUE, f"the id of a row of Ties is ref:NUMBER or tied:NUMBER, found {shown(name)}")
        if (found[1] == "ref") != (len(chosen) == 1):
            raise RowError(BAD_VALUE, f"{name} has {len(chosen)} right answers; ref has one, tied has several")
        facts, cluster = {"kind": str(found[1]), "number": int(found[2])}, f"ties:{found[2]}"
    elif len(chosen) != 1:
        raise RowError(BAD_VALUE, f"{len(chosen)} right answers; outside of Ties there is one")
    return Item(
        id=name,
        prompt=(user(prompt),),
        responses=tuple(assistant(text) for text in (*chosen, *rejected)),
        gold=(1.0,) * len(chosen) + (0.0,) * len(rejected),
        subset=subset,
        cluster=cluster,
        origin=origin,
        facts=facts,
    )


def check_ties(items: Items) -> None:
    """Raise ValueError for two rows of Ties with one id: rows go together by it, and one would not be counted."""
    seen: dict[tuple[str, int], str] = {}
    for item in items:
        if item.subset != TIES:
            continue
        first = seen.setdefault((item.facts["kind"], item.facts["number"]), item.origin)
        if first != item.origin:
            raise ValueError(f"{item.origin} has the id {item.id} of {first}, and an id of Ties names one row")


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return the domains, and the five means of Ties. The benchmark shares the credit of ties.

    Ties itself is strict.
    """
    found = by_subset(items, best_credit(rewards, items.gold, "half" if rule == "own" else rule))
    found.pop(TIES, None)
    return {**found, **ties_columns(items, rewards)} if rule == "own" else found


def ties_columns(items: Items, rewards: Floats) -> dict[str, Credit]:
    """Return the five means of Ties, as its authors' code has them.

    A row's gap is its lowest right reward minus its highest wrong one, and its spread is its highest right reward
    minus its lowest right one.

    - `ref`, `tied`: the share of rows, with one right answer or several, whose gap is above 0.
    - `pref`: of questions that have both rows, the share whose tied gap is above the tied spread.
    - `hard`: the same for the smaller of the two gaps.
    - `bonus`: the mean of tanh(smaller gap / spread - 1), 0 for 0 / 0.
    """
    rows: dict[str, dict[int, int]] = {"ref": {}, "tied": {}}
    for place, item in enumerate(items):
        if item.subset == TIES:
            rows[item.facts["kind"]][item.facts["number"]] = place
    right = np.where(items.gold == 1, rewards, np.nan)
    wrong = np.where(items.gold == 0, rewards, np.nan)

    def lowest_right(numbers: np.ndarray) -> Floats:
        return np.nanmin(right[numbers], axis=1)

    found: dict[str, Credit] = {}
    gap: dict[str, Floats] = {}
    both = [number for number in rows["tied"] if number in rows["ref"]]
    for kind in ("ref", "tied"):
        places = np.array(list(rows[kind].values()), np.int64)
        if len(places):
            gaps = lowest_right(places) - np.nanmax(wrong[places], axis=1)
            found[f"Ties/{kind}"] = Credit(places, (gaps > 0).astype(np.float64))
            by_number = dict(zip(rows[kind], gaps.tolist(), strict=True))
            gap[kind] = np.array([by_number[number] for number in both])
    if both:
        places = np.array([rows["tied"][number] for number in both], np.int64)
        spread = np.nanmax(right[places], axis=1) - lowest_right(places)
        smaller = np.minimum(gap["ref"], gap["tied"])
        with np.errstate(divide="ignore", invalid="ignore"):
            bonus = np.nan_to_num(np.tanh(smaller / spread - 1), nan=0.0)
        found["Ties/pref"] = Credit(places, (gap["tied"] > spread).astype(np.float64))
        found["Ties/hard"] = Credit(places, (smaller > spread).astype(np.float64))
        found["Ties/bonus"] = Credit(places, bonus)
    return found


def combine(means: Means) -> dict[str, Floats]:
    """Return the six domains, their plain mean as `overall`, and the five means of Ties as details."""
    sections = {domain: means[domain] for domain in DOMAINS if domain in means}
    parts = {name: means[f"Ties/{name}"] for name in TIES_WEIGHTS if f"Ties/{name}" in means}
    if len(parts) == len(TIES_WEIGHTS):
        total = sum(weight * parts[name] for name, weight in TIES_WEIGHTS.items())
        sections[TIES] = cast(Floats, np.asarray(total))
    details = {f"Ties/{name}": value for name, value in parts.items()}
    return {**with_overall(sections, list(DOMAINS)), **details}


REWARDBENCH2 = Benchmark(
    name="rewardbench2",
    title="RewardBench 2",
    aggregate="mean of six domains",
    hub=(HubPart("test", "allenai/reward-bench-2", "test"),),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=tuple(DOMAINS),
    expected=DOMAINS,
    check=check_ties,
)
