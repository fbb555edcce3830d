"""Masks that keep the sequences of a row apart, of each kind that an attention takes. It knows segments; no model."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from lightning_rm.models.attention.rectangle import (
    seen_segments,
    starts_of,
    within_reach,
)
from lightning_rm.tokens import Segments, TokenBatch

SEGMENT_ATTENTION = "sdpa_by_segment"
"""The name of this attention in transformers: SDPA, and for a mask made by `segment_mask` SDPA by segment."""


WHOLE_ROWS = Segments((), ())
"""The segments of a grid whose rows are one sequence each: nothing to cut."""


def segment_mask(segments: Segments) -> Tensor:
    """Return the "attention mask" of a grid of segments: the length of each, and how many segments back
    the one stands that it continues.

    [prompt | chosen | rejected] of 3, 2 and 4 tokens is `[[[[3, 2, 4], [0, 1, 2]]]]`.

    Returns:
        (1, 1, 2, S) long, on the CPU: S segments in the order of the grid.
    """
    return torch.tensor([[[segments.lengths, segments.back]]], dtype=torch.long)


def block_mask(tokens: TokenBatch, segments: Segments, causal: bool, dtype: torch.dtype) -> Tensor:
    """Return what `segment_mask` says as a plain additive mask, L x L, for `attn_implementation=eager`.

    Args:
        tokens: a grid of (R, L).
        segments: its segments.
        causal: whether a token attends to earlier tokens alone.
        dtype: of the hidden states.

    Returns:
        (R, 1, L, L): 0 where a token may attend, the dtype's lowest number elsewhere.
    """
    seen = seen_segments(segments.back)
    number = torch.repeat_interleave(torch.arange(len(segments.lengths)), torch.tensor(segments.lengths))
    number = number.view(tokens.input_ids.shape)
    allowed = seen[number[:, :, None], number[:, None, :]].to(tokens.input_ids.device)
    if causal:  # positions go on from a segment to the one that continues it
        allowed &= tokens.position_ids[:, :, None] >= tokens.position_ids[:, None, :]
    return _additive(allowed[:, None], dtype)


def padding_mask(tokens: TokenBatch) -> Tensor:
    """Return (R, 1, 1, L) bool for rows of one sequence whose tokens also see what follows them: each of them sees all
    tokens of its row and no padding.
    """
    return tokens.mask[:, None, None]


def attention_mask(
    tokens: TokenBatch, config: PreTrainedConfig, packs: bool, causal: bool, dtype: torch.dtype
) -> Tensor:
    """Return what to hand a backbone as its attention mask, so that every token sees its own sequence alone.

    Args:
        tokens: a grid of (R, L).
        config: the backbone's, with the attention it runs.
        packs: whether the architecture can keep several sequences of a row apart.
        causal: whether a token attends to earlier tokens alone.
        dtype: of the backbone.

    Returns:
        The mask of the attention's kind, ready for every layer; (R, L), 1 for tokens and 0 for padding, where no row
        holds two sequences and the backbone makes its own of that.

    Raises:
        ValueError: if the sequences of a row cannot be kept apart, or one is continued by two and tokens see what
            follows them.
    """
    segments = tokens.segments
    attention = config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # there is no public name
    window: int | None = getattr(config, "sliding_window", None)
    if segments is None or len(segments.lengths) == 1:
        # Handed (R, L) for tokens that see what follows them, transformers asks the device whether anything is masked
        # at all, and waits for the answer. DeBERTa takes no other mask, makes its own of it and does not ask.
        if attention == SEGMENT_ATTENTION:
            return segment_mask(WHOLE_ROWS) if causal else padding_mask(tokens)
        if attention == "eager" and packs and not causal and window is None:  # a window needs a second mask
            return _additive(padding_mask(tokens), dtype)
        return tokens.mask.long()
    if not packs:
        raise ValueError(f"{config.model_type} cannot keep the sequences of a row apart: use layout=padded")
    if any(segments.back) and not causal:
        raise ValueError(
            f"tokens of this {config.model_type} see what follows them, so two responses cannot share a prompt; use "
            "layout=packed or padded"
        )
    if attention == SEGMENT_ATTENTION:
        return segment_mask(segments)
    beyond_window = window is not None and _longest(segments) > window
    if attention != "eager" or beyond_window:
        raise ValueError(
            f"attn_implementation={attention!r} cannot keep the sequences of a row apart here: use layout=padded, or "
            "attn_implementation=sdpa where the architecture has it"
        )
    return block_mask(tokens, segments, causal, dtype)


def windowed(mask: Tensor, window: int | None) -> Tensor:
    """Return what `padding_mask` gave, as (R, 1, L, L) where tokens see a window of it alone; no row of it is empty."""
    length = mask.shape[3]
    if window is None or length <= window:
        return mask
    place = torch.arange(length, device=mask.device)
    distance = place[:, None] - place
    return within_reach(distance, causal=False, window=window) & (mask | (distance == 0))


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask of the same shape: 0 where a token may attend, the dtype's lowest number elsewhere."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)


def _longest(segments: Segments) -> int:
    """Return the number of tokens of the longest sequence: a segment with those that it continues."""
    starts = starts_of(segments.lengths, segments.back)
    return max(start + length for start, length in zip(starts, segments.lengths, strict=True))
