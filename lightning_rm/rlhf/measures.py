"""`Measures`: how good a round's policy is, in numbers and as files. It knows rows and judgements; no policy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_rm.drafts import write_json
from lightning_rm.rlhf.diversity import distinct_ngrams, self_bleu
from lightning_rm.rlhf.judges import Judgement
from lightning_rm.rlhf.log_probs import divergence, perplexity
from lightning_rm.rlhf.row_files import write_rows
from lightning_rm.told import object_of, read_object


@dataclass(frozen=True)
class Measures:
    """What came out of one round.

    Args:
        num_prompts: P.
        num_responses: N, k of each.
        gold: mean worth of a response; None where the judge only compares.
        gold_std_err: its standard error over prompts.
        win: share of the verdicts for this policy against the start policy's response of the same place.
        tie: share of the ties.
        lose: share of the verdicts against it.
        num_no_verdict: comparisons that the judge has not answered; they are in no share.
        reward: mean reward by this round's model, less that of the start policy's response of the same place, over
            those of which the model reads both; None in round 0.
        reward_std: standard deviation of the rewards over responses.
        agreement: share of pairs of responses to one prompt whose gold differs, where the reward differs the same way;
            a tie of rewards counts one half.
        num_overlong: responses that the reward model cannot read whole; they are in no mean.
        kl: nats a response from the start policy, estimated by `log_probs.divergence`.
        kl_std_err: its standard error over prompts.
        kl_k3: the other estimate.
        length: mean tokens of a response, its end among them.
        distinct_1: share of different words among all.
        distinct_2: share of different pairs of words.
        self_bleu: mean over prompts, of the k responses to each.
        perplexity: of the responses, a token, under the start policy.
        num_empty: responses without words.
        num_unfinished: responses that were cut off.
    """

    num_prompts: int
    num_responses: int
    gold: float | None
    gold_std_err: float | None
    win: float | None
    tie: float | None
    lose: float | None
    num_no_verdict: int
    reward: float | None
    reward_std: float | None
    agreement: float | None
    num_overlong: int
    kl: float
    kl_std_err: float | None
    kl_k3: float
    length: float
    distinct_1: float | None
    distinct_2: float | None
    self_bleu: float | None
    perplexity: float | None
    num_empty: int
    num_unfinished: int

    @property
    def worth(self) -> float:
        """Gold, where it is known; else the share of wins, ties half."""
        return (self.win or 0.0) + (self.tie or 0.0) / 2 if self.gold is None else self.gold


def measure(
    rows: Sequence[Mapping[str, Any]],
    judgements: Sequence[Judgement],
    rewards: Sequence[float | None] | None,
    start_rewards: Sequence[float | None] | None,
) -> Measures:
    """Return the measures of a round.

    Args:
        rows: one per prompt, as `judging.judge_policy` makes them.
        judgements: of all responses, in the order of the rows.
        rewards: of all responses, by this round's model; None before there is one.
        start_rewards: of the responses that they were compared with.
    """
    responses: list[str] = [response for row in rows for response in row["responses"]]
    verdicts = [judgement.verdict for judgement in judgements if judgement.verdict is not None]
    share = {name: verdicts.count(name) / len(verdicts) if verdicts else None for name in ("win", "tie", "lose")}
    means = [np.mean(row["gold"]) for row in rows if "gold" in row]
    log_prob, start_log_prob = (np.array([row[name] for row in rows]) for name in ("log_prob", "start_log_prob"))
    num_tokens = sum(sum(row["num_tokens"]) for row in rows)
    distance = divergence(log_prob, start_log_prob)
    known = [reward for reward in rewards or () if reward is not None]
    both = zip(rewards or (), start_rewards or (), strict=True)
    gains = [own - start for own, start in both if own is not None and start is not None]
    return Measures(
        num_prompts=len(rows),
        num_responses=len(responses),
        gold=float(np.mean(means)) if means else None,
        gold_std_err=float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None,
        **share,
        num_no_verdict=len(judgements) - len(verdicts),
        reward=float(np.mean(gains)) if gains else None,
        reward_std=float(np.std(known)) if known else None,
        agreement=agreement(rows),
        num_overlong=len(rewards or ()) - len(known),
        kl=distance.kl,
        kl_std_err=_finite(distance.std_err),
        kl_k3=distance.k3,
        length=num_tokens / len(responses),
        distinct_1=_finite(distinct_ngrams(responses, 1)),
        distinct_2=_finite(distinct_ngrams(responses, 2)),
        self_bleu=_finite(float(np.mean([self_bleu(row["responses"]) for row in rows]))),
        perplexity=_finite(perplexity(start_log_prob, num_tokens)),
        num_empty=sum(not response.strip() for response in responses),
        num_unfinished=sum(row["finished"].count(False) for row in rows),
    )


def agreement(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the share of pairs of responses to one prompt that rewards order as gold does; None if there are none.

    Pairs of equal gold are not counted, pairs of equal rewards count one half.
    """
    agreed: list[float] = []
    for row in rows:
        if "gold" not in row or "rewards" not in row or None in row["rewards"]:
            continue
        gold, reward = np.array(row["gold"], float), np.array(row["rewards"], float)
        first, second = np.triu_indices(len(gold), 1)
        sign = np.sign(gold[first] - gold[second]) * np.sign(reward[first] - reward[second])
        agreed += ((1 + sign[gold[first] != gold[second]]) / 2).tolist()
    return float(np.mean(agreed)) if agreed else None


def _finite(value: float) -> float | None:
    """Return a number, or None where there is none: JSON has no NaN."""
    return value if math.isfinite(value) else None


def write_judged(folder: Path, measures: Measures, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `judged.jsonl`, and then `judged.json`, each whole or not at all."""
    write_rows(folder / "judged.jsonl", rows)
    write_json(folder / "judged.json", asdict(measures))


def read_judged(folder: Path) -> tuple[Measures, list[dict[str, Any]]]:
    """Read what `write_judged` wrote.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with (path := folder / "judged.jsonl").open(encoding="utf-8") as file:
            rows = [object_of(line, path) for line in file]
        return Measures(**read_object(folder / "judged.json")), rows
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder}/judged.jsonl or judged.json beside it is damaged; delete both, and the round is judged again"
        ) from error
