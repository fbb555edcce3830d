"""Attention within segments: what makes the layout `packed` exact and free of padding.

Everything but attention works token by token, so packed rows run through a backbone as they are. Inside attention the
tokens are cut into their segments, each attends to itself alone, and the outputs are put end to end again: no cell of
padding, no T x T mask. Seen on a CPU with 16 conversations of 30 to 700 tokens: 5 times faster than re-padding them to
a rectangle, 8 times faster than one row under a block mask.

The segments travel as the 4-D attention mask that every model of transformers hands on to its attention as it is, so
they are there when gradient checkpointing runs a layer again. It knows tensors and transformers' attention interface.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SEGMENT_ATTENTION = "sdpa_by_segment"
"""The name of this attention in transformers: SDPA, and for a mask made by `segment_lengths` SDPA in each segment."""


def segment_lengths(segment_ids: Tensor) -> Tensor:
    """The "attention mask" of a packed grid: how many tokens each segment has.

    `[[1, 1, 1, 2, 2]]` gives `[[[[3, 2]]]]`. Padding (segment 0) between or after segments is a segment of its own that
    nobody reads, and a segment never goes over the end of a row.

    Args:
        segment_ids: (R, L) long, each segment one contiguous run.

    Returns:
        (1, 1, 1, S) long, on the CPU: S segments in the order of the grid.
    """
    rows = torch.arange(segment_ids.shape[0], device=segment_ids.device)[:, None]
    runs = (segment_ids + rows * (segment_ids.max() + 1)).flatten()
    lengths: Tensor = torch.unique_consecutive(runs, return_counts=True)[1]
    return lengths.cpu()[None, None, None]


def block_mask(segment_ids: Tensor, causal: bool, dtype: torch.dtype) -> Tensor:
    """The same as a plain additive mask, T x T, for `attn_implementation=eager`.

    Args:
        segment_ids: (R, T) long.
        causal: whether a token attends to earlier tokens alone.
        dtype: of the hidden states.

    Returns:
        (R, 1, T, T): 0 where a token may attend, the dtype's lowest number elsewhere.
    """
    allowed = segment_ids[:, :, None] == segment_ids[:, None, :]
    if causal:
        allowed = allowed.tril()
    mask = torch.zeros(allowed.shape, dtype=dtype, device=segment_ids.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def attention_mask(
    segment_ids: Tensor, position_ids: Tensor, config: PreTrainedConfig, packs: bool, causal: bool, dtype: torch.dtype
) -> Tensor:
    """What to hand a backbone as its attention mask, so that every token attends within its own segment alone.

    Args:
        segment_ids: (R, L) long, 0 for padding.
        position_ids: (R, L) long, restarted for every sequence.
        config: the backbone's, with the attention it runs.
        packs: whether the architecture can keep several sequences of a row apart.
        causal: whether a token attends to earlier tokens alone.
        dtype: of the backbone.

    Returns:
        (R, L), 1 for tokens and 0 for padding, where no row holds two sequences; else the mask of the attention's kind.

    Raises:
        ValueError: if the sequences of a row cannot be kept apart.
    """
    if segment_ids.max() <= 1:
        return (segment_ids != 0).long()
    if not packs:
        raise ValueError(f"{config.model_type} cannot keep the sequences of a row apart: use layout=padded")
    attention = config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # there is no public name
    if attention == SEGMENT_ATTENTION:
        return segment_lengths(segment_ids)
    window: int | None = getattr(config, "sliding_window", None)
    beyond_window = window is not None and int(position_ids.max()) >= window
    if attention != "eager" or beyond_window:
        raise ValueError(
            f"attn_implementation={attention!r} cannot keep the sequences of a row apart here: use layout=padded, or "
            "attn_implementation=sdpa where the architecture has it"
        )
    return block_mask(segment_ids, causal, dtype)


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA; with segment lengths for a mask, SDPA within each segment.

    Args:
        module: the attention layer; `is_causal` says whether it belongs to a decoder.
        query: (R, heads, L, d).
        key: (R, key heads, L, d).
        value: (R, key heads, L, d).
        attention_mask: what `segment_lengths` gave, or any mask of transformers' SDPA.
        sliding_window: how far a token sees, where the layer has a window.
        kwargs: `dropout`, `scaling` and the like, handed on to transformers' SDPA.

    Returns:
        (R, L, heads, d) and None, as transformers wants it.
    """
    if attention_mask is None or attention_mask.dtype != torch.long:
        return _sdpa(module, query, key, value, attention_mask, **kwargs)
    lengths: list[int] = attention_mask.flatten().tolist()
    flat = [tensor.transpose(0, 1).flatten(1, 2)[None] for tensor in (query, key, value)]
    queries, keys, values = (tensor.split(lengths, dim=2) for tensor in flat)
    outputs = [
        _sdpa(module, q, k, v, _window_mask(module, q, sliding_window), **kwargs)[0]
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    rows, heads, columns, _ = query.shape
    return torch.cat(outputs, dim=1).view(rows, columns, heads, -1), None


def _sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Transformers' SDPA, which handles grouped heads, scaling, dropout and causality."""
    output: Tensor = sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
    return output, None


def _window_mask(module: nn.Module, query: Tensor, window: int | None) -> Tensor | None:
    """(1, 1, l, l) bool for a segment longer than the layer's window, None for a shorter one.

    A decoder's token sees itself and `window - 1` tokens before it; an encoder's also `window - 1` after it.
    """
    length = query.shape[2]
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=query.device)
    distance = position[:, None] - position[None, :]
    seen = (distance >= 0) & (distance < window) if module.is_causal else distance.abs() < window
    return seen[None, None]


AttentionInterface.register(SEGMENT_ATTENTION, segment_attention)
AttentionMaskInterface.register(SEGMENT_ATTENTION, sdpa_mask)
