"""Log-probabilities of responses under a policy, and the divergence of two policies by them.

It knows token ids and causal language models; no text and no reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lightning_rm.models.backbone.contexts import evaluating
from lightning_rm.precision import wide

Floats = NDArray[np.float64]


@torch.inference_mode()
def response_log_probs(
    policy: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    batch_tokens: int = 8192,
) -> Floats:
    """Return the log-probability of each response, the sum over its tokens, in nats.

    Args:
        policy: a causal language model; put into evaluation mode for the call and back.
        prompts: n lists of token ids, up to the response.
        responses: n lists of token ids, the end among them; an empty one has log-probability 0.
        temperature: what the logits are divided by, as when the responses were sampled.
        batch_tokens: the most tokens of a forward, padding among them; a longer sequence goes alone.

    Returns:
        (n,), summed in float64.
    """
    found = np.zeros(len(prompts))
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]) + len(responses[place]))
    batch: list[int] = []
    for number, place in enumerate(order):
        batch.append(place)
        following = order[number + 1] if number + 1 < len(order) else None
        longest = 0 if following is None else len(prompts[following]) + len(responses[following])
        if following is None or longest * (len(batch) + 1) > batch_tokens:
            chosen = ([*prompts[one], *responses[one]] for one in batch)
            found[batch] = _batch(policy, list(chosen), [len(prompts[one]) for one in batch], temperature)
            batch = []
    return found


@dataclass(frozen=True)
class Divergence:
    """KL(policy || start) in nats a response, estimated from responses that the policy sampled.

    Args:
        kl: the mean of `log policy - log start`: unbiased (k1).
        std_err: its standard error over prompts: responses to one prompt lie alike far from the start.
        k3: the mean of `start / policy - 1 + log policy - log start`: of the whole response, never negative, unbiased
            too, but of large spread far from the start (http://joschu.net/blog/kl-approx.html).
    """

    kl: float
    std_err: float
    k3: float


def divergence(policy: Floats, start: Floats) -> Divergence:
    """Return the divergence by log-probabilities of the same responses.

    Args:
        policy: (P, k) under the policy that sampled k to each of P prompts.
        start: (P, k) under the other.
    """
    difference = policy - start
    means = difference.mean(axis=1)
    spread = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")
    return Divergence(float(difference.mean()), spread, float((np.expm1(-difference) + difference).mean()))


def perplexity(log_probs: Floats, num_tokens: int) -> float:
    """Return the perplexity of texts: `exp(-sum of log-probabilities / tokens)`."""
    return float(np.exp(-log_probs.sum() / num_tokens)) if num_tokens else float("nan")


def _batch(
    policy: PreTrainedModel, sequences: Sequence[list[int]], starts: Sequence[int], temperature: float
) -> list[float]:
    width = max(map(len, sequences))
    ids = torch.tensor([[*sequence, *[0] * (width - len(sequence))] for sequence in sequences], device=policy.device)
    mask = torch.tensor(
        [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences], device=policy.device
    )
    with evaluating(policy):
        output: Any = policy(input_ids=ids, attention_mask=mask)
    logits = wide(output.logits[:, :-1]) / temperature
    log_probs = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[..., 0].double()
    return [
        float(row[start - 1 : len(sequence) - 1].sum())
        for row, start, sequence in zip(log_probs, starts, sequences, strict=True)
    ]
