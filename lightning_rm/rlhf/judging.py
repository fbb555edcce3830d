"""How good a round's policy is: its responses to held-out prompts, judged, and how far it has moved from the start.

Every round answers the same prompts with the same random numbers, so that two rounds differ by their policies alone. It
knows policies, a judge and rewards; no round and no folder but the one that it writes to.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.digests import fingerprint
from lightning_rm.drafts import draft_of
from lightning_rm.rlhf.diversity import distinct_ngrams, self_bleu
from lightning_rm.rlhf.judges import Comparison, Judge, Judgement
from lightning_rm.rlhf.log_probs import divergence, perplexity, response_log_probs
from lightning_rm.rlhf.policy import load_policy
from lightning_rm.rlhf.prompts import Prompt, encode_prompt
from lightning_rm.rlhf.reward_function import RewardFunction
from lightning_rm.rlhf.sampling import Sampled, sample_responses
from lightning_rm.scoring.rows import json_line


@dataclass(frozen=True)
class Answering:
    """How policies are asked.

    Args:
        k: responses a prompt; self-BLEU is of these, and needs two.
        temperature: what logits are divided by; the divergence is of the policies at this temperature.
        max_new_tokens: the most tokens of a response.
        batch_prompts: prompts of a batch.
        seed: of what is drawn.
        dtype: of the policies.
        device: of the policies.
        chat_template_kwargs: further arguments for the chat template, of all prompts; a prompt's own go before them.
    """

    k: int = 2
    temperature: float = 1.0
    max_new_tokens: int = 256
    batch_prompts: int = 8
    seed: int = 0
    dtype: str = "float32"
    device: str | torch.device = "cpu"
    chat_template_kwargs: Mapping[str, Any] | None = None

    def arguments(self, prompt: Prompt) -> dict[str, Any]:
        """Return the arguments that the chat template gets for a prompt."""
        return {**(self.chat_template_kwargs or {}), **prompt.chat_template_kwargs}


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
        reward: mean reward by this round's model, less that of the start policy's responses; None in round 0.
        reward_std: standard deviation of the rewards over responses.
        agreement: share of pairs of responses to one prompt whose gold differs, where the reward differs the same way;
            a tie of rewards counts one half.
        num_overlong: responses that the reward model cannot read whole; they are in no mean.
        kl: nats a response from the start policy, estimated by `log_probs.divergence`.
        kl_std_err: its standard error.
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


def judge_policy(
    policy: str | Path,
    start: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    judge: Judge,
    answering: Answering,
    *,
    rewards: RewardFunction | None = None,
    start_said: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[Measures, list[dict[str, Any]]]:
    """Ask a policy for responses, have a judge say what they are worth, and measure them.

    Args:
        policy: a folder or hub name.
        start: the policy that it is held against; the same for round 0.
        tokenizer: of both.
        prompts: P held-out prompts.
        judge: who judges.
        answering: how the policy is asked.
        rewards: of this round's model; what it leaves out is counted. None before there is one.
        start_said: the rows that this function gave for the start policy; None if `policy` is the start policy.

    Returns:
        The measures, and a row per prompt: what was said, its rewards, gold and verdicts.

    Raises:
        ValueError: if there is no prompt, a prompt is too long for the policy, or the start policy was asked others.
    """
    if not prompts:
        raise ValueError("there is no prompt to judge a policy by")
    if start_said is not None and [_asked(row["prompt"], len(row["responses"])) for row in start_said] != [
        _asked(prompt.messages, answering.k) for prompt in prompts
    ]:
        raise ValueError(
            "the start policy was judged by other prompts, or another number of responses to each; judge round 0 anew "
            "first (stage=judge round=0 overwrite=true)"
        )
    loaded = _load(policy, answering)
    said = _ask(loaded, tokenizer, prompts, answering)
    own = _log_probs(loaded, tokenizer, prompts, said, answering)
    del loaded  # two policies need not be in memory together
    start_log_probs = (
        own if start_said is None else _log_probs(_load(start, answering), tokenizer, prompts, said, answering)
    )
    others = [each.responses for each in said] if start_said is None else [row["responses"] for row in start_said]
    comparisons = [
        Comparison(prompt.messages, response, other, prompt.chat_template_kwargs)
        for prompt, sampled, against in zip(prompts, said, others, strict=True)
        for response, other in zip(sampled.responses, against, strict=True)
    ]
    judgements = judge(comparisons)
    values = None if rewards is None else _rewards(rewards, comparisons, [each.response for each in comparisons])
    start_values = None if rewards is None else _rewards(rewards, comparisons, [each.other for each in comparisons])
    rows: list[dict[str, Any]] = []
    for place, (prompt, sampled) in enumerate(zip(prompts, said, strict=True)):
        part = slice(place * answering.k, (place + 1) * answering.k)
        rows.append(
            {
                "prompt": prompt.messages,
                "responses": sampled.responses,
                "id": prompt.id,
                "prompt_id": prompt.prompt_id,
                "finished": sampled.finished,
                "num_tokens": [len(ids) for ids in sampled.ids],
                "log_prob": own[part].tolist(),
                "start_log_prob": start_log_probs[part].tolist(),
                "verdicts": [judgement.verdict for judgement in judgements[part]],
                **_known("gold", [judgement.gold for judgement in judgements[part]]),
                **({} if values is None else {"rewards": values[part]}),
                **({"chat_template_kwargs": prompt.chat_template_kwargs} if prompt.chat_template_kwargs else {}),
            }
        )
    return _measures(rows, judgements, values, start_values), rows


def write_judged(folder: Path, measures: Measures, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `judged.jsonl`, and then `judged.json`, each whole or not at all."""
    with draft_of(folder / "judged.jsonl") as draft, draft.open("wb") as file:
        file.writelines(json_line(row) + b"\n" for row in rows)
    with draft_of(folder / "judged.json") as draft:
        draft.write_text(json.dumps(asdict(measures), indent=2) + "\n", encoding="utf-8")


def read_judged(folder: Path) -> tuple[Measures, list[dict[str, Any]]]:
    """Read what `write_judged` wrote.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with (folder / "judged.jsonl").open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return Measures(**json.loads((folder / "judged.json").read_text(encoding="utf-8"))), rows
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder}/judged.jsonl or judged.json beside it is damaged; delete both, and the round is judged again"
        ) from error


def _asked(prompt: Sequence[Mapping[str, Any]], num_responses: int) -> str:
    return fingerprint(prompt=prompt, num_responses=num_responses)


def _load(policy: str | Path, how: Answering) -> PreTrainedModel:
    gc.collect()
    return load_policy(policy, dtype=how.dtype).to(how.device)  # pyright: ignore[reportArgumentType]  # a device


def _ask(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], how: Answering
) -> list[Sampled]:
    """Return what a policy says."""
    batches = sample_responses(
        policy,
        tokenizer,
        [prompt.messages for prompt in prompts],
        how.k,
        temperature=how.temperature,
        max_new_tokens=how.max_new_tokens,
        batch_prompts=how.batch_prompts,
        seed=how.seed,
        chat_template_kwargs=[how.arguments(prompt) for prompt in prompts],
    )
    return [sampled for batch in batches for sampled in batch]


def _log_probs(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    said: Sequence[Sampled],
    how: Answering,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (N,), the log-probability of each response under a policy."""
    encoded = [encode_prompt(tokenizer, prompt.messages, how.arguments(prompt)) for prompt in prompts]
    asked = [ids for ids, sampled in zip(encoded, said, strict=True) for _ in sampled.ids]
    return response_log_probs(
        policy, asked, [ids for sampled in said for ids in sampled.ids], temperature=how.temperature
    )


def _rewards(
    rewards: RewardFunction, comparisons: Sequence[Comparison], responses: Sequence[str]
) -> list[float | None]:
    return rewards(
        [compared.prompt for compared in comparisons],
        responses,
        chat_template_kwargs=[compared.chat_template_kwargs for compared in comparisons],
    )


def _measures(
    rows: Sequence[Mapping[str, Any]],
    judgements: Sequence[Judgement],
    rewards: Sequence[float | None] | None,
    start_rewards: Sequence[float | None] | None,
) -> Measures:
    responses: list[str] = [response for row in rows for response in row["responses"]]
    verdicts = [judgement.verdict for judgement in judgements if judgement.verdict is not None]
    share = {name: verdicts.count(name) / len(verdicts) if verdicts else None for name in ("win", "tie", "lose")}
    means = [np.mean(row["gold"]) for row in rows if "gold" in row]
    log_prob = np.array([value for row in rows for value in row["log_prob"]])
    start_log_prob = np.array([value for row in rows for value in row["start_log_prob"]])
    num_tokens = sum(sum(row["num_tokens"]) for row in rows)
    distance = divergence(log_prob, start_log_prob)
    known = [reward for reward in rewards or () if reward is not None]
    start_known = [reward for reward in start_rewards or () if reward is not None]
    return Measures(
        num_prompts=len(rows),
        num_responses=len(responses),
        gold=float(np.mean(means)) if means else None,
        gold_std_err=float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None,
        **share,
        num_no_verdict=len(judgements) - len(verdicts),
        reward=float(np.mean(known) - np.mean(start_known)) if known and start_known else None,
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


def _known(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """Return a field with these values if all of them are known, else no field."""
    return {} if any(value is None for value in values) else {name: list(values)}
