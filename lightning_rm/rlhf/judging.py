"""How good a round's policy is: its responses to held-out prompts, judged, and how far it has moved from the start.

Every round answers the same prompts with the same random numbers, so that two rounds differ by their policies alone. It
knows policies, a judge and rewards; no round and no folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_rm.digests import fingerprint
from lightning_rm.rlhf.answering import Answering, ask, load, log_probs
from lightning_rm.rlhf.judges import Comparison, Judge, judged
from lightning_rm.rlhf.measures import Measures, measure
from lightning_rm.rlhf.prompts import Prompt
from lightning_rm.rlhf.reward_function import RewardFunction


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
        ValueError: if there is no prompt, a prompt is too long for the policy, the start policy was asked others, or
            the judge's judgements cannot be counted, or are none.
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
    loaded = load(policy, answering)
    said = ask(loaded, tokenizer, prompts, answering)
    own = log_probs(loaded, tokenizer, prompts, said, answering)
    del loaded  # two policies need not be in memory together
    start_log_probs = (
        own if start_said is None else log_probs(load(start, answering), tokenizer, prompts, said, answering)
    )
    others = [each.responses for each in said] if start_said is None else [row["responses"] for row in start_said]
    comparisons = [
        Comparison(prompt.messages, response, other, prompt.chat_template_kwargs)
        for prompt, sampled, against in zip(prompts, said, others, strict=True)
        for response, other in zip(sampled.responses, against, strict=True)
    ]
    judgements = judged(judge, comparisons)
    if all(judgement.verdict is None for judgement in judgements):
        raise ValueError(
            f"the judge has no verdict on any of {len(judgements):,} responses; can it read them whole? "
            "(num_eval_prompts, max_prompt_tokens and max_new_tokens say how long they are)"
        )
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
    return measure(rows, judgements, values, start_values), rows


def _asked(prompt: Sequence[Mapping[str, Any]], num_responses: int) -> str:
    return fingerprint(prompt=prompt, num_responses=num_responses)


def _rewards(
    rewards: RewardFunction, comparisons: Sequence[Comparison], responses: Sequence[str]
) -> list[float | None]:
    return rewards(
        [compared.prompt for compared in comparisons],
        responses,
        chat_template_kwargs=[compared.chat_template_kwargs for compared in comparisons],
    )


def _known(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """Return a field with these values if all of them are known, else no field."""
    return {} if any(value is None for value in values) else {name: list(values)}
