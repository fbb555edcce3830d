"""PPE's human part (Frick et al., arXiv 2410.14872): votes of Chatbot Arena on pairs of answers. It knows no model.

Votes for neither answer are left out of the accuracy, which is the published figure. Beside it stands how alike
the votes of people and of the rewards rank the models, by `model_ranks`.
"""

from __future__ import annotations

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, shown
from lightning_rm.evaluation.benchmarks.benchmark import OVERALL, Benchmark, Means, assistant, cluster_of, user
from lightning_rm.evaluation.benchmarks.model_ranks import Votes, agreement
from lightning_rm.evaluation.benchmarks.reading import HubPart, text_of
from lightning_rm.evaluation.credit import Credit, Rule, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items

FLAGS = ("hard_prompt", "easy_prompt", "if_prompt", "is_code", "is_code_prompt", "math_prompt")
"""Fields that name a category of prompts, true or false."""


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Return one vote: `prompt`, `response_1`, `response_2`, `winner`, `model_a`, `model_b`, `language`."""
    winner = str(raw.get("winner"))
    gold = {"model_a": (1.0, 0.0), "model_b": (0.0, 1.0)}.get(winner, (0.5, 0.5))
    if gold == (0.5, 0.5) and not winner.startswith("tie"):
        raise RowError(BAD_VALUE, f"field 'winner' must be model_a, model_b or a tie, found {shown(winner)}")
    prompt = text_of(raw, "prompt")
    language = str(raw.get("language", ""))
    flags = [name for name in FLAGS if raw.get(name) is True]
    return Item(
        id=str(raw.get("question_id", origin)),
        prompt=(user(prompt),),
        responses=(assistant(text_of(raw, "response_1")), assistant(text_of(raw, "response_2"))),
        gold=gold,
        subset="votes",
        cluster=cluster_of(prompt),
        origin=origin,
        facts={
            "models": (str(raw.get("model_a", "")), str(raw.get("model_b", ""))),
            "categories": [*flags, *(["english" if language == "English" else "other languages"] if language else [])],
        },
    )


def check_votes(items: Items) -> None:
    """Raise ValueError if all votes are for neither answer: none would count in the accuracy."""
    if not len(items.comparisons.item):
        raise ValueError(
            f"all {len(items):,} votes of benchmark={PPE_HUMAN.name}, from {items[0].origin} on, are for neither "
            "answer, and the accuracy is over the others; give the whole benchmark"
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
    """Say how alike the votes of people and of the rewards rank the models that wrote the answers; nothing for fewer
    than three. The rewards vote for the answer with the higher one; a vote that does not name two models is left out.
    """
    sides = np.array([item.facts["models"] for item in items])
    named = (sides != "").all(axis=1) & (sides[:, 0] != sides[:, 1])
    names, numbers = np.unique(sides[named], return_inverse=True)
    if len(names) < 3:
        return {}
    first, second = numbers.reshape(-1, 2).T
    machine = 0.5 + 0.5 * np.sign(rewards[named, 0] - rewards[named, 1])
    return agreement(Votes(first, second, items.cluster[named], len(names)), items.gold[named, 0], machine)


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
    check=check_votes,
)
