"""Two views of a batch: two forwards with fresh dropout, made in one pass over doubled rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lightning_rm.batch import RewardOutput
from lightning_rm.tokens import TokenBatch

Forward = Callable[[TokenBatch], RewardOutput]
"""A reward model, or one with other weights: tokens to rewards and features."""


def doubled(tokens: TokenBatch) -> TokenBatch:
    """Return every row of a token batch twice: `reward_index` [[2], [4]] over a grid of 6 becomes [[2, 8], [4, 10]].

    Args:
        tokens: R rows, k responses to each of P prompts.

    Returns:
        2R rows, k responses to each of 2P prompts: those of the first rows, then those of the second.
    """
    shift, read, key = tokens.input_ids.numel(), tokens.read_cells, tokens.response_key
    return TokenBatch(
        input_ids=torch.cat([tokens.input_ids] * 2),
        position_ids=torch.cat([tokens.position_ids] * 2),
        mask=torch.cat([tokens.mask] * 2),
        reward_index=torch.cat([tokens.reward_index, tokens.reward_index + shift], dim=1),
        response_index=torch.cat([tokens.response_index, tokens.response_index + shift], dim=1),
        segments=tokens.segments and tokens.segments.twice(),
        read_cells=None if read is None else torch.cat([read, read + shift]),
        response_key=None if key is None else torch.cat([key, key], dim=1),
    )


def two_views(model: Forward, tokens: TokenBatch) -> RewardOutput:
    """Return rewards (k, 2, P) and features (k, 2, P, H) of two views of P prompts' responses.

    Views stand where members do, so that the ranking loss is over both and `RewardOutput.averaged` is their mean.

    Args:
        model: of rewards (k, P).
        tokens: k responses to each of P prompts.
    """
    output = model(doubled(tokens))
    k, num_pairs = tokens.reward_index.shape
    return replace(
        output,
        reward=output.reward.view(k, 2, num_pairs),
        feature=output.feature.view(k, 2, num_pairs, -1),
    )
