"""A policy's responses to prompts, and how likely it is to give some. It knows policies; no judge and no reward."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_rm.rlhf.log_probs import response_log_probs
from lightning_rm.rlhf.policy import load_policy
from lightning_rm.rlhf.prompts import Prompt, encode_prompt
from lightning_rm.rlhf.sampling import Sampled, sample_responses


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


def load(policy: str | Path, how: Answering) -> PreTrainedModel:
    """Return a policy on its device; the memory of one that was let go before is free by then."""
    gc.collect()
    return load_policy(policy, dtype=how.dtype).to(how.device)  # pyright: ignore[reportArgumentType]  # a device


def ask(
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


def log_probs(
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
