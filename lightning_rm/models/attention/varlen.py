"""Segments in one call of torch's variable-length attention: no padding, no mask, on a GPU in half precision.

A segment's queries are its own tokens, its keys those of the segments that it continues and its own, put end to end.
Its last query is its last key's, which is how flash attention aligns the two. That differs between builds, so the first
forward on a device tries the kernel on a small tree of segments; where it is wrong or missing it is not used, and a
warning says so. It knows lengths, indices and that kernel.
"""

from __future__ import annotations

import inspect
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from lightning_rm.models.attention.rectangle import within_reach

KERNEL: Any = varlen_attn
"""(T, heads, d), (K, key heads, d) twice, ends of the sequences in both, longest of both: (T, heads, d)."""

LARGEST_HEAD = 256
FAR_OFF = 0.02
"""A difference that bfloat16 does not explain in an average of numbers around 1."""


class Spans(NamedTuple):
    """The queries and keys of S segments, as a variable-length kernel takes them.

    Args:
        key: (K,) long, the cells whose keys the segments see, end to end; None where those are the grid's, in order.
        query_ends: (S + 1,) int32, where each segment's queries end, 0 first.
        key_ends: (S + 1,) int32, where the keys that it sees end.
        most_queries: the most queries of any segment.
        most_keys: the most keys that any segment sees.
    """

    key: Tensor | None
    query_ends: Tensor
    key_ends: Tensor
    most_queries: int
    most_keys: int


def spans_of(lengths: list[int], back: list[int], device: torch.device) -> Spans:
    """Return the spans of segments.

    Args:
        lengths: S tokens.
        back: how many segments before it the segment stands that each continues, 0 for none.
        device: where to put them; nothing there is waited for.
    """
    own = torch.arange(sum(lengths)).split(lengths)
    seen: list[Tensor] = []
    for number, distance in enumerate(back):
        seen.append(torch.cat([seen[number - distance], own[number]]) if distance else own[number])
    num_seen = [len(cells) for cells in seen]
    key = torch.cat(seen).to(device, non_blocking=True) if any(back) else None
    return Spans(key, _ends(lengths, device), _ends(num_seen, device), max(lengths), max(num_seen))


def attend(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, causal: bool, window: int | None, scale: float | None
) -> Tensor:
    """Attend from every segment to what it sees, in one call.

    Args:
        query: (T, heads, d).
        key: (T, key heads, d).
        value: (T, key heads, d).
        spans: of the T tokens.
        causal: whether a token attends to earlier tokens alone.
        window: how far a token sees: itself and `window - 1` tokens before, without `causal` also after it.
        scale: of the logits; None for one over the root of d.

    Returns:
        (T, heads, d).
    """
    if spans.key is not None:
        key, value = key.index_select(0, spans.key), value.index_select(0, spans.key)
    reach = -1 if window is None else window - 1
    output: Tensor = KERNEL(
        query,
        key,
        value,
        spans.query_ends,
        spans.key_ends,
        spans.most_queries,
        spans.most_keys,
        scale=scale,
        window_size=(reach, 0 if causal else reach),
        **_options(KERNEL),
    )
    return output


def kernel_dtype(query: Tensor) -> torch.dtype:
    """Return what attention computes in: under autocast its dtype, else the query's."""
    kind = query.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype


def serves(query: Tensor, dropout: float) -> bool:
    """Tell whether the kernel can take these queries, (..., d), and is right on their device.

    It knows half precision alone, heads of up to 256 and no dropout.
    """
    if query.device.type != "cuda" or dropout or query.shape[-1] > LARGEST_HEAD or query.shape[-1] % 8:
        return False
    dtype = kernel_dtype(query)
    return dtype in (torch.bfloat16, torch.float16) and is_right(query.device, dtype)


@lru_cache
def is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether the kernel gives what attention is, on [prompt | chosen | rejected] and a sequence by itself.

    The kernel is tried once for each device and dtype; a no is a warning. Nothing is differentiated: this may run
    inside a checkpointed layer, which counts the tensors that are saved for its backward pass.
    """
    lengths = [9, 4, 6, 5]
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(sum(lengths), heads, 64, generator=generator).to(device, dtype) for heads in (4, 2, 2)
    )
    alone, tree = (spans_of(lengths, back, device) for back in ([0, 0, 0, 0], [0, 1, 2, 0]))
    for spans, causal, window in ((tree, True, None), (tree, True, 3), (alone, True, None), (alone, False, None)):
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            try:
                found = attend(query, key, value, spans, causal, window, None)
            except (RuntimeError, TypeError) as error:  # there is none for this device, or another one in this torch
                warnings.warn(f"variable-length attention does not run on {device}: {error}", stacklevel=2)
                return False
            expected = by_hand(query.float(), key.float(), value.float(), spans, causal, window)
        difference = float((found.float() - expected).abs().max())
        if not difference <= FAR_OFF:
            warnings.warn(f"variable-length attention on {device} is off by {difference:.3g}: not used", stacklevel=2)
            return False
    return True


def by_hand(query: Tensor, key: Tensor, value: Tensor, spans: Spans, causal: bool, window: int | None) -> Tensor:
    """Return what `attend` computes, by SDPA of one segment after the other; arguments and result are its own."""
    if spans.key is not None:
        key, value = key[spans.key], value[spans.key]
    num_queries, num_keys = spans.query_ends.diff().tolist(), spans.key_ends.diff().tolist()
    outputs: list[Tensor] = []
    for q, k, v in zip(query.split(num_queries), key.split(num_keys), value.split(num_keys), strict=True):
        place = torch.arange(len(k), device=k.device)
        mask = within_reach(place[len(k) - len(q) :, None] - place, causal, window)
        heads_first = (part.transpose(0, 1) for part in (q, k, v))
        output = functional.scaled_dot_product_attention(*heads_first, attn_mask=mask, enable_gqa=True)
        outputs.append(output.transpose(0, 1))
    return torch.cat(outputs)


@lru_cache
def _options(kernel: Any) -> dict[str, bool]:
    """Return the option for grouped heads: from torch 2.12 on the kernel wants to be told of them; older versions take
    them unasked.
    """
    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(kernel).parameters else {}


def _ends(lengths: list[int], device: torch.device) -> Tensor:
    """Return (S + 1,) int32: 0 and the running sums."""
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    return ends.to(device, non_blocking=True)
