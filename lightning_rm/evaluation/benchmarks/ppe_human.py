"""PPE's human part (Frick et al., arXiv 2410.14872): votes of Chatbot Arena on pairs of answers. It knows no model.

Votes for neither answer are left out of the accuracy, which is the published figure. Beside it stand agreements of
model rankings, by human votes and by the rewards' votes; the paper's separability, confidence agreement and Brier score
are not computed.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.regression import kendall_rank_corrcoef, pearson_corrcoef, spearman_corrcoef

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, shown
from lightning_rm.evaluation.benchmarks.benchmark import OVERALL, Benchmark, Means, assistant, cluster_of, user
from lightning_rm.evaluation.benchmarks.reading import HubPart, text_of
from lightning_rm.evaluation.credit import Credit, Rule, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items

FLAGS = ("hard_prompt", "easy_prompt", "if_prompt", "is_code", "is_code_prompt", "math_prompt")
"""Fields that name a category of prompts, true or false."""


def read_row(part: str, raw: Raw, where: str) -> Item:
    """Return one vote: `prompt`, `response_1`, `response_2`, `winner`, `model_a`, `model_b`, `language`."""
    winner = str(raw.get("winner"))
    gold = {"model_a": (1.0, 0.0), "model_b": (0.0, 1.0)}.get(winner, (0.5, 0.5))
    if gold == (0.5, 0.5) and not winner.startswith("tie"):
        raise RowError(BAD_VALUE, f"field 'winner' must be model_a, model_b or a tie, found {shown(winner)}")
    prompt = text_of(raw, "prompt")
    language = str(raw.get("language", ""))
    flags = [name for name in FLAGS if raw.get(name) is True]
    return Item(
        id=str(raw.get("question_id", where)),
        prompt=(user(prompt),),
        responses=(assistant(text_of(raw, "response_1")), assistant(text_of(raw, "response_2"))),
        gold=gold,
        subset="votes",
        cluster=cluster_of(prompt),
        where=where,
        facts={
            "models": (str(raw.get("model_a", "")), str(raw.get("model_b", ""))),
            "categories": [*flags, *(["english" if language == "English" else "other languages"] if language else [])],
        },
    )


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return all votes for one of two answers, and those of each category."""
    comparisons = items.comparisons
    credit = pair_credit(comparisons.margins(rewards), rule)
    found = {OVERALL: Credit(comparisons.item, credit)}
    categories = [items[int(number)].facts["categories"] for number in comparisons.item]
    for name in sorted({name for names in categories for name in names}):
        inside = np.array([name in names for names in categories])
        found[f"overall/{name}"] = Credit(comparisons.item[inside], credit[inside])
    return found


def combine(means: Means) -> dict[str, Floats]:
    """Return the accuracy, and that of each category as a detail."""
    return dict(means)


def rankings(items: Items, rewards: Floats) -> dict[str, float]:
    """Say how alike human votes and the rewards' votes rank the models that wrote the answers.

    Spearman's and Kendall's correlation of Bradley-Terry ratings, and Pearson's of the rates at which each model beats
    each other one. A vote of the rewards goes to the higher one.
    """
    names = sorted({name for item in items for name in item.facts["models"] if name})
    if len(names) < 3:
        return {}
    place = {name: number for number, name in enumerate(names)}
    first = np.array([place[item.facts["models"][0]] for item in items])
    second = np.array([place[item.facts["models"][1]] for item in items])
    human = wins(first, second, items.gold[:, 0], len(names))
    machine = wins(first, second, 0.5 + 0.5 * np.sign(rewards[:, 0] - rewards[:, 1]), len(names))
    met = (human + human.T > 0) & ~np.eye(len(names), dtype=bool)
    rates = [(table / np.where(met, table + table.T, 1.0))[met] for table in (human, machine)]
    of_human, of_machine = (torch.from_numpy(bradley_terry(table)) for table in (human, machine))
    return {
        "Spearman of ratings": float(spearman_corrcoef(of_human, of_machine)),
        "Kendall of ratings": float(cast(torch.Tensor, kendall_rank_corrcoef(of_human, of_machine))),
        "Pearson of win rates": float(pearson_corrcoef(*map(torch.from_numpy, rates))),
    }


def wins(first: NDArray[np.int64], second: NDArray[np.int64], share: Floats, num: int) -> Floats:
    """(num, num): how often the row's model beat the column's, from (N,) shares of a win for the first."""
    table = np.zeros((num, num))
    np.add.at(table, (first, second), share)
    np.add.at(table, (second, first), 1 - share)
    np.fill_diagonal(table, 0)
    return table


def bradley_terry(table: Floats, num_steps: int = 2000, prior: float = 0.1) -> Floats:
    """(num,) log-strengths that make the wins likely, by minorisation-maximisation (Hunter, 2004).

    Args:
        table: (num, num) wins of the row's model over the column's.
        num_steps: at most.
        prior: wins that are added both ways for every pair that met, so that a model that always wins has a rating.
    """
    table = table + prior * ((table + table.T) > 0)
    games, total = table + table.T, table.sum(axis=1)
    strength = np.ones(len(table))
    for _ in range(num_steps):
        before = strength
        strength = total / (games / (strength[:, None] + strength)).sum(axis=1)
        strength = strength / np.exp(np.log(strength).mean())
        if np.abs(np.log(strength / before)).max() < 1e-10:
            break
    return np.log(strength)


PPE_HUMAN = Benchmark(
    name="ppe_human",
    title="PPE human preference",
    aggregate="accuracy over votes for one of two answers",
    hub=(HubPart("votes", "lmarena-ai/PPE-Human-Preference-V1", "test"),),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=(),
    expected={"votes": 16038},
    more=rankings,
)
