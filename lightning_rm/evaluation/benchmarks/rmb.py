"""RMB (Zhou et al., arXiv 2410.09893): helpful and harmless, in pairs and as one winner of several. It knows no model.

It is on no hub: `path=` is the folder `RMB_dataset` of its repository. Its pairs say `reject`, not `rejected`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, WRONG_TYPE, Raw, RowError, has, required, shown
from lightning_rm.data.formats.turns import Turns, read_turns
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark, Means, assistant, cluster_of, with_overall
from lightning_rm.evaluation.benchmarks.reading import named_in, text_of
from lightning_rm.evaluation.credit import Credit, Rule, best_credit, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items

PARTS = {"pair_helpful": 10067, "pair_harmless": 7064, "bon_helpful": 2109, "bon_harmless": 1677}
"""Part -> rows; `bon` is best of n."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return a pair (`chosen`, `reject`) or a list (`bon_best`, `loser_list`), with `conversation_input`."""
    path = str(raw.get("category_path", part))
    aim = named_in(f"{part}/{path}", ("harmless", "helpful"))
    if aim is None:
        raise RowError(
            BAD_VALUE, f"neither 'category_path' ({shown(path)}) nor the folder says Helpfulness or Harmlessness"
        )
    conversation = required(raw, "conversation_input")
    prompt = read_turns(conversation, "conversation_input", "user")
    if has(raw, "bon_best"):
        losers = required(raw, "loser_list")
        if not isinstance(losers, Sequence) or not losers:
            raise RowError(BAD_VALUE, "'loser_list' must hold one response at least")
        answers = [raw["bon_best"], *cast(Sequence[object], losers)]
        kind, name = "bon", raw.get("bon_uid", origin)
    else:
        answers = [required(raw, "chosen"), required(raw, "reject")]
        kind, name = "pair", raw.get("pair_uid", origin)
    return Item(
        id=str(name),
        prompt=prompt,
        responses=tuple(_answer(answer) for answer in answers),
        gold=(1.0, *(0.0,) * (len(answers) - 1)),
        subset=f"{kind}_{aim}",
        cluster=cluster_of(prompt),
        origin=origin,
        facts={"category": path.rpartition("/")[2]},
    )


def _answer(value: object) -> Turns:
    if not isinstance(value, Mapping):
        raise RowError(WRONG_TYPE, f"a response must have llm_name and answer, found {shown(value)}")
    return assistant(text_of(cast(Raw, value), "answer"))


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return the four parts, and each by category. A winner must stand strictly above every loser."""
    found: dict[str, Credit] = {}
    categories = np.array([item.facts["category"] for item in items])
    for part in PARTS:
        rows = np.flatnonzero(items.subset == part)
        if not len(rows):
            continue
        if part.startswith("pair"):
            credit = pair_credit(rewards[rows, 0] - rewards[rows, 1], rule)
        else:
            credit = best_credit(rewards[rows], items.gold[rows], rule)
        found[part] = Credit(rows, credit)
        for category in np.unique(categories[rows]).tolist():
            inside = categories[rows] == category
            found[f"{part}/{category}"] = Credit(rows[inside], credit[inside])
    return found


def combine(means: Means) -> dict[str, Floats]:
    """Return the four parts, each a mean over its rows, their plain mean as `overall`, categories as details."""
    sections = {part: means[part] for part in PARTS if part in means}
    return {**with_overall(sections, list(PARTS)), **{name: means[name] for name in means if "/" in name}}


RMB = Benchmark(
    name="rmb",
    title="RMB",
    aggregate="mean of four parts: pairs and best of n, helpful and harmless",
    hub=(),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=tuple(PARTS),
    expected=PARTS,
)
