"""PPE's correctness part (Frick et al., arXiv 2410.14872): 32 samples a prompt, each verified right or wrong.

It knows no model. The published figure is the accuracy on sampled pairs of a right and a wrong response. The curves of
the best of k use the closed form over all subsets of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from lightning_rm.data.formats.fields import BAD_VALUE, Raw, RowError, has, number, shown
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark, Means, assistant, cluster_of, user, with_overall
from lightning_rm.evaluation.benchmarks.reading import HubPart, list_of, named_in, text_of
from lightning_rm.evaluation.best_of_n import best_of_n
from lightning_rm.evaluation.credit import Credit, Rule, pair_credit
from lightning_rm.evaluation.items import Floats, Item, Items

SOURCES = {"mmlu_pro": "MMLU-Pro", "math": "MATH", "gpqa": "GPQA", "ifeval": "IFEval", "mbpp_plus": "MBPP-Plus"}
"""Section -> its name on the hub."""

MAX_K = 32


def read_row(part: str, raw: Raw, origin: str) -> Item:
    """Read one prompt: `prompt`, `response_1` to `response_32`, `scores` (right or wrong), `sampled_conflict_pairs`."""
    subset = named_in(part, list(SOURCES))
    if subset is None:
        raise RowError(BAD_VALUE, f"the path {part!r} names none of {', '.join(SOURCES)}")
    scores = _scores(raw)
    responses = tuple(assistant(text_of(raw, f"response_{place + 1}")) for place in range(len(scores)))
    prompt = text_of(raw, "prompt")
    return Item(
        id=str(raw.get("question_id", origin)),
        prompt=(user(prompt),),
        responses=responses,
        gold=tuple(scores),
        subset=subset,
        cluster=cluster_of(prompt),
        origin=origin,
        pairs=_pairs(raw, scores),
    )


def _scores(raw: Raw) -> list[float]:
    """Return 1 or 0 for each response."""
    scores: list[float] = []
    for place, score in enumerate(list_of(raw, "scores")):
        if not isinstance(score, bool | int | float) or score not in (0, 1):  # a text "False" would be true
            raise RowError(BAD_VALUE, f"score {place} must be true or false, found {shown(score)}")
        scores.append(float(score))
    if has(raw, f"response_{len(scores) + 1}"):
        raise RowError(BAD_VALUE, f"there are {len(scores)} scores, and a response_{len(scores) + 1}")
    return scores


def _pairs(raw: Raw, scores: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Return the sampled pairs, the right response first; the data hold some pairs twice, and each counts once."""
    pairs: dict[tuple[int, int], None] = {}
    for pair in list_of(raw, "sampled_conflict_pairs"):
        first, second = (number(place, "a place", 0, len(scores) - 1) for place in cast(Sequence[object], pair))
        if not (first.is_integer() and second.is_integer()) or scores[int(first)] == scores[int(second)]:
            raise RowError(BAD_VALUE, f"{shown(pair)} is not a pair of a right and a wrong response")
        better, worse = sorted((int(first), int(second)), key=scores.__getitem__, reverse=True)
        pairs[better, worse] = None
    if not pairs:
        raise RowError(BAD_VALUE, "'sampled_conflict_pairs' is empty, and the accuracy is of sampled pairs alone")
    return tuple(pairs)


def columns(items: Items, rewards: Floats, rule: Rule) -> dict[str, Credit]:
    """Return the pairs of each source; by the benchmark's own rule its curves too, `math/best of 4` and `math/oracle of
    4`.
    """
    comparisons = items.comparisons
    credit = pair_credit(comparisons.margins(rewards), rule)
    found: dict[str, Credit] = {}
    for source in SOURCES:
        rows = np.flatnonzero(items.subset[comparisons.item] == source)
        if len(rows):
            found[source] = Credit(comparisons.item[rows], credit[rows])
        if rule == "own":
            found |= _curves(source, items, rewards)
    return found


def _curves(source: str, items: Items, rewards: Floats) -> dict[str, Credit]:
    """Return the expected correctness of the best of k by reward and by an oracle, and each prompt's area under the ROC
    curve.

    k goes only as far as every prompt of the source has responses.
    """
    numbers = np.flatnonzero(items.subset == source)
    if not len(numbers):
        return {}
    found: dict[str, Credit] = {}
    num = min(int(np.isfinite(items.gold[numbers]).sum(axis=1).min()), MAX_K)
    reward, gold = rewards[numbers, :num], items.gold[numbers, :num]
    picked, oracle = best_of_n(reward, gold), best_of_n(gold, gold)
    for k in range(1, num + 1):
        found[f"{source}/best of {k}"] = Credit(numbers, picked[:, k - 1])
        found[f"{source}/oracle of {k}"] = Credit(numbers, oracle[:, k - 1])
    area = roc_areas(reward, gold)
    found[f"{source}/AUC"] = Credit(numbers[both := ~np.isnan(area)], area[both])
    return found


def roc_areas(reward: Floats, gold: Floats) -> Floats:
    """Return (P,), the chance that a right response of a prompt has a higher reward than a wrong one, ties half.

    NaN for a prompt without one of each. The P curves have few points: one table of differences replaces P metrics.
    """
    right, wrong = gold == 1, gold == 0
    pairs = right[:, :, None] & wrong[:, None, :]
    difference = reward[:, :, None] - reward[:, None, :]
    number = pairs.sum(axis=(1, 2))
    total = (pairs * (0.5 + 0.5 * np.sign(difference))).sum(axis=(1, 2))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def combine(means: Means) -> dict[str, Floats]:
    """Return the accuracy of each source and their mean as `overall`; four figures of each source's curves as details.

    - `max score`: the highest point of the curve of best of k.
    - `end score`: the curve at the largest k.
    - `loss`: the mean over k of the oracle's curve minus this curve, which is the mean squared error of single picks,
      since correctness is 0 or 1.
    - `AUC`: of reward as a classifier of correctness, within prompts.
    """
    sections = {source: means[source] for source in SOURCES if source in means}
    details: dict[str, Floats] = {}
    for source in SOURCES:
        ks = [k for k in range(1, MAX_K + 1) if f"{source}/best of {k}" in means]
        if ks:
            picked = np.array([means[f"{source}/best of {k}"] for k in ks])
            oracle = np.array([means[f"{source}/oracle of {k}"] for k in ks])
            details[f"{source}/max score"] = picked.max(axis=0)
            details[f"{source}/end score"] = picked[-1]
            details[f"{source}/loss"] = (oracle - picked).mean(axis=0)
            details |= {f"{source}/best of {k}": means[f"{source}/best of {k}"] for k in ks if k & (k - 1) == 0}
        if f"{source}/AUC" in means:
            details[f"{source}/AUC"] = means[f"{source}/AUC"]
    return {**with_overall(sections, list(SOURCES)), **details}


PPE_CORRECTNESS = Benchmark(
    name="ppe_correctness",
    title="PPE correctness",
    aggregate="mean accuracy of five sources on sampled pairs",
    hub=tuple(HubPart(source, f"lmarena-ai/PPE-{name}-Best-of-K", "train") for source, name in SOURCES.items()),
    read_row=read_row,
    columns=columns,
    combine=combine,
    categories=tuple(SOURCES),
    expected=dict.fromkeys(SOURCES, None),
)
