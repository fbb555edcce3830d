"""Segments in one rectangle: a row for each tree of segments that continue one another, attended to in one call.

On a CPU every cell of padding costs, and calls are cheap: there `attention` goes segment by segment. On a GPU it is the
other way round, and 48 segments of a batch are one call of SDPA under one mask. It knows lengths and indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MOST_CELLS = 2**27
"""The most cells of a mask, R x L x L: larger ones (one tree of a batch of long conversations) are not worth it."""


class Rectangle(NamedTuple):
    """R rows of L places for the T cells of a grid with S segments, padded on the right.

    Args:
        cell: (R, L) long, the cell that stands at each place; 0 at a place that is padding.
        place: (T,) long, the flat place that each cell stands at.
        segment: (R, L) long, each place's segment; S at padding.
        position: (R, L) long, each place's position in its own sequence.
        seen: (S + 1, S + 1) bool, [a, b]: whether segment a is b or continues it. Padding sees padding.
    """

    cell: Tensor
    place: Tensor
    segment: Tensor
    position: Tensor
    seen: Tensor

    def mask(self, causal: bool, window: int | None) -> Tensor:
        """Return (R, 1, L, L) bool, what each place attends to."""
        allowed = self.seen[self.segment[:, :, None], self.segment[:, None, :]]
        distance = self.position[:, :, None] - self.position[:, None, :]
        return (allowed & within_reach(distance, causal, window))[:, None]


def within_reach(distance: Tensor, causal: bool, window: int | None) -> Tensor:
    """Return bool of the same shape: whether a token attends to one that stands so many places before it.

    A decoder's token sees itself and what stands before it, within a window itself and `window - 1` tokens before; an
    encoder's also `window - 1` after it.
    """
    seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return seen if window is None else seen & (distance.abs() < window)


def seen_segments(back: Sequence[int]) -> Tensor:
    """Return (S, S) bool, [a, b]: whether segment a is b or continues it; `back` as in `rectangle_of`."""
    seen = torch.eye(len(back), dtype=torch.bool)
    for number, distance in enumerate(back):
        if distance:
            seen[number] |= seen[number - distance]
    return seen


def shape_of(lengths: list[int], back: list[int]) -> tuple[int, int]:
    """Return (R, L) of the rectangle: the number of trees and the tokens of the largest."""
    trees = _trees(lengths, back)
    return len(trees), max(trees)


def starts_of(lengths: Sequence[int], back: Sequence[int]) -> list[int]:
    """Return the position of each segment's first token: 0, or where the segment that it continues ends."""
    starts: list[int] = []
    for number, distance in enumerate(back):
        starts.append(starts[number - distance] + lengths[number - distance] if distance else 0)
    return starts


def rectangle_of(lengths: list[int], back: list[int], device: torch.device) -> Rectangle:
    """Return the rectangle of segments, whose trees stand one after the other.

    Args:
        lengths: S tokens.
        back: how many segments before it the segment stands that each continues, 0 for none.
        device: where to put it; a GPU is not waited for.
    """
    unwaited = device.type == "cuda"  # elsewhere a copy may come after the memory is gone
    num_segments, trees = len(lengths), _trees(lengths, back)
    rows, columns = len(trees), max(trees)
    starts = starts_of(lengths, back)
    length = torch.tensor(lengths)
    tokens = int(length.sum())
    segment_of_cell = torch.repeat_interleave(torch.arange(num_segments), length)
    first_of_segment = torch.repeat_interleave(length.cumsum(0) - length, length)
    position_of_cell = torch.repeat_interleave(torch.tensor(starts), length) + torch.arange(tokens) - first_of_segment
    size = torch.tensor(trees)
    place = torch.arange(tokens) + torch.repeat_interleave(torch.arange(rows) * columns - size.cumsum(0) + size, size)
    cell, segment, position = (
        torch.full((rows * columns,), fill)
        .scatter(0, place, values)
        .view(rows, columns)
        .to(device, non_blocking=unwaited)
        for fill, values in ((0, torch.arange(tokens)), (num_segments, segment_of_cell), (0, position_of_cell))
    )
    seen = seen_segments([*back, 0]).to(device, non_blocking=unwaited)
    return Rectangle(cell, place.to(device, non_blocking=unwaited), segment, position, seen)


def _trees(lengths: list[int], back: list[int]) -> list[int]:
    """Return the number of tokens of each tree: a segment that continues none begins one."""
    trees: list[int] = []
    for length, distance in zip(lengths, back, strict=True):
        if distance:
            trees[-1] += length
        else:
            trees.append(length)
    return trees
