"""Rotary positions that are scaled by length: each sequence's by its own, and not by the longest of its batch.

Of `longrope` (Ding et al., arXiv 2402.13753; Phi 3 and Phi 4 mini) transformers takes one of two sets of factors for
all sequences of a forward, by whether the longest is over the length that the model was pretrained on: a reward would
depend on what stands beside it. Here both sets are computed, and every token has that of its sequence. It knows
rotary modules and grids; not what attends.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_rm.models.attention.rectangle import starts_of
from lightning_rm.models.backbone.positions import LONGROPE, steady_tokens
from lightning_rm.tokens import TokenBatch


def scale_by_sequence(backbone: PreTrainedModel) -> None:
    """Hook into a backbone's rotary modules, in place: within `scaled` they give every token its sequence's factors."""
    limit = steady_tokens(backbone.config)
    for module in cast(nn.Module, backbone).modules() if limit is not None else ():
        told: Any = getattr(module, "rope_type", None)
        if LONGROPE in (cast("Mapping[str, str]", told).values() if isinstance(told, Mapping) else (told,)):
            module.register_forward_hook(_EachItsOwn(cast(int, limit)), with_kwargs=True)


@contextmanager
def scaled(tokens: TokenBatch, limit: int | None) -> Generator[None]:
    """Have rotary modules within the block go by the sequences of a batch; for a limit of None nothing is done.

    Raises:
        ValueError: if a sequence of up to `limit` tokens shares its beginning with a longer one.
    """
    _NOW.long = None if limit is None else long_tokens(tokens, limit)
    try:
        yield
    finally:
        _NOW.long = None


def long_tokens(tokens: TokenBatch, limit: int) -> Tensor:
    """Return (R, L) bool, which tokens belong to a sequence of more than `limit` tokens.

    Raises:
        ValueError: if one belongs to a sequence that is longer and to one that is not.
    """
    if tokens.segments is None:
        return (tokens.mask.sum(1, keepdim=True) > limit).expand_as(tokens.mask)
    lengths, back = tokens.segments.lengths, tokens.segments.back
    reach = [start + length for start, length in zip(starts_of(lengths, back), lengths, strict=True)]
    for number in reversed(range(len(reach))):  # a segment stands before those that continue it
        if back[number]:
            reach[number - back[number]] = max(reach[number - back[number]], reach[number])
    is_long = [length > limit for length in reach]
    long = torch.tensor(is_long).repeat_interleave(torch.tensor(lengths)).view(tokens.mask.shape).to(tokens.mask.device)
    if any(back) and any(is_long) and any(map(all, zip(is_long, _short(tokens, limit), strict=True))):
        raise ValueError(
            f"layout=shared_prefix: a sequence of over {limit} tokens begins as a shorter one, and this backbone has "
            "other positions for it; give the data module reading=model.reading, which keeps them apart, or use "
            "layout=packed or padded"
        )
    return long


def _short(tokens: TokenBatch, limit: int) -> list[bool]:
    """Return which segments belong to a decoder's sequence of up to `limit` tokens, each read where it ends."""
    assert tokens.segments is not None
    lengths, back = tokens.segments.lengths, tokens.segments.back
    ends = tokens.reward_index.flatten()
    segment = torch.bucketize(ends.cpu(), torch.tensor(lengths).cumsum(0), right=True)
    is_short = tokens.position_ids.flatten()[ends] < limit
    found = set(segment[is_short.cpu()].tolist())
    for number in reversed(range(len(back))):
        if back[number] and number in found:
            found.add(number - back[number])
    return [number in found for number in range(len(back))]


class _Now(threading.local):
    """The tokens of long sequences of the forward that runs in this thread; None for as transformers has it."""

    long: Tensor | None = None


_NOW = _Now()


class _EachItsOwn:
    """A hook that a copy of a model has too.

    A rotary module goes by the largest position that it is handed. With all positions it gives the factors of long
    sequences, if there is one; with positions below the limit those of the others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, rotary: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if _NOW.long is None:
            return output
        long = _NOW.long[..., None]
        if "position_ids" in kwargs:
            kwargs = {**kwargs, "position_ids": kwargs["position_ids"].clamp(max=self.limit - 1)}
        else:
            args = (args[0], args[1].clamp(max=self.limit - 1), *args[2:])
        short = rotary.forward(*args, **kwargs)  # past this hook
        if isinstance(output, Tensor):
            return torch.where(long, output, short)
        return tuple(torch.where(long, *both) for both in zip(output, short, strict=True))
