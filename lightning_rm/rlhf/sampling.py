"""Sampling: k responses of a policy to each prompt, the same each time they are asked for.

MetaRM's meta set is made of these: several responses a prompt from the latest policy, at a temperature high enough for
them to differ (arXiv 2405.00438; k = 5). It knows a causal language model and conversations; no file and no reward.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lightning_rm.counts import check_counts, is_positive
from lightning_rm.data.rows import Message
from lightning_rm.digests import key_digest
from lightning_rm.models.backbone.contexts import evaluating
from lightning_rm.models.backbone.positions import longest_sequence
from lightning_rm.rlhf.prompts import encode_prompt

WITHOUT_CACHE = frozenset({"minimax"})
"""Families that sample without a cache, every token by a forward of all before it: transformers asks the first layer's
cache how much it has read, which in these is a layer of states and says 0, so each step would read the text again."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a policy said to one prompt.

    Args:
        responses: k texts, equal ones too.
        finished: for each, whether the policy ended it; False where `max_new_tokens` cut it off.
        ids: for each, the tokens as they were sampled, the end among them: what log-probabilities are of.
    """

    responses: tuple[str, ...]
    finished: tuple[bool, ...]
    ids: tuple[tuple[int, ...], ...]


def sample_responses(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    k: int,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 256,
    batch_prompts: int = 8,
    seed: int = 0,
    chat_template_kwargs: Sequence[Mapping[str, Any]] = (),
) -> Iterator[list[Sampled]]:
    """Sample k responses to each prompt, a batch of prompts at a time.

    Every response has random numbers of its own, named by the seed, the prompt and its place among the k, so the other
    prompts of a call and their order do not matter. The global random state is neither read nor moved. The same batches
    on the same kind of device give the same texts, bit for bit. In other batches a prompt is padded to another length,
    which moves logits by a rounding: a text changes only where two tokens are as near as that, about one token in a
    million in float32, more in bfloat16.

    Only temperature and top-p shape the distribution: a repetition penalty or the like in the policy's own generation
    config has no effect.

    Args:
        policy: a causal language model; put into evaluation mode for a batch and back.
        tokenizer: the policy's, with a chat template, as `load_tokenizer` gives it.
        prompts: N conversations up to the response.
        k: responses a prompt.
        temperature: what the logits are divided by, above 0.
        top_p: sample from the fewest tokens that have this probability together.
        max_new_tokens: the most tokens of a response.
        batch_prompts: prompts of a batch; k sequences each.
        seed: of everything drawn.
        chat_template_kwargs: for each prompt, further arguments for the chat template; empty for none.

    Yields:
        For each batch, what was said to each of its prompts, in order. Texts are without special tokens and without
        space around them; they end before the first end-of-sequence token of the tokenizer or the policy's generation
        config.

    Raises:
        ValueError: if a number is out of its range, no token ends a response, a prompt and a response are together
            longer than the policy's context, or the policy's logits are not numbers.
    """
    check_options(k, temperature, top_p, max_new_tokens, batch_prompts)
    ends = ending_tokens(policy.generation_config, tokenizer)
    room = room_for_prompt(policy.config, max_new_tokens)
    arguments = chat_template_kwargs or [{}] * len(prompts)
    encoded = [encode_prompt(tokenizer, prompt, told) for prompt, told in zip(prompts, arguments, strict=True)]
    for number, ids in enumerate(encoded):
        if room is not None and len(ids) > room:
            raise ValueError(
                f"prompt {number} has {len(ids):,} tokens, and the policy's context has room for {room:,} beside "
                f"max_new_tokens={max_new_tokens}; leave the prompt out, or make max_new_tokens smaller"
            )
    config = GenerationConfig(
        do_sample=False,  # the noise below is what samples
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=ends[0],  # padding is masked, and what follows an end is cut off
        use_cache=False if policy.config.model_type in WITHOUT_CACHE else None,
    )
    warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(temperature)]
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    for start in range(0, len(encoded), batch_prompts):
        batch = [ids for ids in encoded[start : start + batch_prompts] for _ in range(k)]
        keys = [int(key_digest(seed, ids, place % k)[:15], 16) for place, ids in enumerate(batch)]
        input_ids, attention_mask = (tensor.to(policy.device) for tensor in _left_padded(batch, ends[0]))
        noise = _GumbelNoise(keys, policy.device)
        with torch.inference_mode(), evaluating(policy), _plain(policy):
            output: Any = policy.generate(  # pyright: ignore[reportCallIssue]  # a method; nn.Module says Tensor
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([*warpers, noise]),
            )
        if noise.has_nan:
            raise ValueError(f"prompt {start}: the policy's logits are not numbers; has its training diverged?")
        said = [_cut(ids, ends) for ids in output[:, input_ids.shape[1] :].tolist()]
        texts = [
            str(tokenizer.decode(ids[: len(ids) - ended], skip_special_tokens=True)).strip() for ids, ended in said
        ]
        finished = [ended for _, ended in said]
        sampled = [tuple(ids) for ids, _ in said]
        groups = [slice(place, place + k) for place in range(0, len(said), k)]
        yield [Sampled(tuple(texts[group]), tuple(finished[group]), tuple(sampled[group])) for group in groups]


def check_options(k: int, temperature: float, top_p: float, max_new_tokens: int, batch_prompts: int) -> None:
    """Say which option of `sample_responses` is out of its range, before a policy is loaded for it.

    Raises:
        ValueError: if one is.
    """
    check_counts(1, k=k, max_new_tokens=max_new_tokens, batch_prompts=batch_prompts)
    if not is_positive(temperature):
        raise ValueError(f"temperature={temperature}; it must be above 0 (1e-4 takes the likeliest tokens)")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}; it is a probability, above 0 and at most 1")


def room_for_prompt(config: PreTrainedConfig, max_new_tokens: int) -> int | None:
    """Return the tokens of a prompt that a policy's context leaves beside a response; None where it names no limit.

    Raises:
        ValueError: if it leaves none.
    """
    limit = longest_sequence(config)
    if limit is not None and limit <= max_new_tokens:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} leaves no room for a prompt, the policy's context has {limit:,} tokens; "
            "make it smaller"
        )
    return None if limit is None else limit - max_new_tokens


class _GumbelNoise(LogitsProcessor):
    """A processor that adds Gumbel noise to logits, for each row from its own generator: the largest is then a sample
    of their softmax.

    A row's noise does not depend on the other rows, unlike what `torch.multinomial` draws for a whole batch.
    """

    def __init__(self, keys: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(key) for key in keys]
        self.has_nan = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.has_nan |= scores.isnan().any()
        rows = [
            torch.empty_like(row).exponential_(generator=generator)
            for row, generator in zip(scores, self.generators, strict=True)
        ]
        return scores - torch.stack(rows).log()


def ending_tokens(config: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a response: the tokenizer's, and those of the policy's generation config (Llama 3 has
    3).

    Raises:
        ValueError: if there are none.
    """
    own: int | list[int] | None = config.eos_token_id if config else None
    ends = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    named = [end for end in dict.fromkeys(ends) if isinstance(end, int)]
    if not named:
        raise ValueError("neither the tokenizer nor the policy names an end-of-sequence token; give one eos_token_id")
    return named


def _left_padded(sequences: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return (n, L) token ids with padding on the left, and the mask of those that are not padding."""
    width = max(map(len, sequences))
    ids = torch.tensor([[pad_id] * (width - len(sequence)) + sequence for sequence in sequences])
    mask = torch.tensor([[0] * (width - len(sequence)) + [1] * len(sequence) for sequence in sequences])
    return ids, mask


def _cut(ids: list[int], ends: Sequence[int]) -> tuple[list[int], bool]:
    """Return the tokens up to and including the first end, and whether there is one."""
    place = next((place for place, token in enumerate(ids) if token in ends), None)
    return (ids, False) if place is None else (ids[: place + 1], True)


@contextmanager
def _plain(policy: PreTrainedModel) -> Generator[None]:
    """Take away the policy's own generation config for a while: `generate` fills in from it what a call leaves out."""
    own = policy.generation_config
    policy.generation_config = GenerationConfig()
    try:
        yield
    finally:
        policy.generation_config = own
