"""How much more a round's policy is worth than the one before: paired by held-out prompt, with its interval.

It knows what judges said of responses; no policy and no table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_rm.evaluation.statistics import cluster_draws, interval

WORTH = {"win": 1.0, "tie": 0.5, "lose": 0.0}
"""Of a verdict, where the judge only compares."""


@dataclass(frozen=True)
class Change:
    """A round's worth less that of the round before, over the prompts that both were judged on.

    Args:
        mean: of the differences.
        low, high: the middle 95 % of its means over draws of prompts, None where they are all alike; seeds and policies
            are not drawn anew.
        num: prompts.
    """

    mean: float
    low: float | None
    high: float | None
    num: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            prompts = "one prompt gives" if self.num == 1 else f"all draws of {self.num} prompts are alike, which gives"
            return f"{self.mean:+.3f}; {prompts} no interval"
        told = "" if self.low > 0 or self.high < 0 else ", which cannot be told from none"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]{told}"


def change(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], num_draws: int = 2000
) -> Change | None:
    """Return how much more a round is worth than the one before; None where no prompt was judged in both.

    Args:
        rows: of the round, as `judge_policy` gives them.
        before: of the round before.
        num_draws: of the bootstrap over prompts.
    """
    by_gold = any("gold" in row for row in (*rows, *before))
    now, then = worth_by_prompt(rows, by_gold=by_gold), worth_by_prompt(before, by_gold=by_gold)
    differences = np.array([value - then[prompt] for prompt, value in now.items() if prompt in then])
    if not len(differences):
        return None
    draws = [drawn @ differences / len(differences) for drawn in cluster_draws(len(differences), num_draws, seed=0)]
    found = interval(np.concatenate(draws))
    low, high = (None if math.isnan(bound) else bound for bound in (found.low, found.high))
    return Change(float(differences.mean()), low, high, len(differences))


def worth_by_prompt(rows: Sequence[Mapping[str, Any]], *, by_gold: bool) -> dict[str, float]:
    """Return prompt -> the mean gold of its responses, or the mean of their verdicts.

    Args:
        rows: as `judge_policy` gives them.
        by_gold: whether the judge knows gold. A prompt without it, one of whose responses the judge could not read, is
            left out then: its verdicts, from 0 to 1, are no gold.
    """
    found: dict[str, float] = {}
    for row in rows:
        known = row.get("gold", ()) if by_gold else [verdict and WORTH[verdict] for verdict in row["verdicts"]]
        values = [value for value in known if value is not None]
        if values:
            found[json.dumps([row["prompt"], row.get("chat_template_kwargs")])] = float(np.mean(values))
    return found
