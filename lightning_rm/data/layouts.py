"""Layouts: how samples are laid on the token grid. Each is a function `list[Sample] -> TokenBatch`.

A layout knows token ids and nothing of what they mean. Whatever the layout, rewards and gradients are those of scoring
each sequence alone; the tests hold every layout to that.

A sequence that stands several times in a batch is computed once and read several times. Data sets in which a prompt has
many pairs (votes over 33 arguments, all pairs of 4 answers) gain as much as they repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_rm.batch import LayoutName, ReadAt, Sample, TokenBatch

Layout = Callable[[Sequence[Sample], ReadAt, int], TokenBatch]


def padded(samples: Sequence[Sample], read_at: ReadAt, pad_id: int) -> TokenBatch:
    """One row a sequence, padded on the right to the longest.

    Two pairs, one of whose responses stands in both: `[[1, 2, 3], [4, 5, pad], [1, 6, pad]]` with reward_index
    `[[2, 2], [4, 7]]` (read at the last token, three columns a row).

    Args:
        samples: P samples of k sequences each.
        read_at: where a response's reward is read: `last` token (decoders) or `first` (encoders).
        pad_id: the id that fills the rest of a row; segment 0 hides it.

    Returns:
        A `TokenBatch` of (R, L), R the number of distinct sequences.
    """
    sequences, occurrence = _distinct(samples)
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    segment_ids = torch.zeros_like(input_ids)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        segment_ids[row, : len(sequence)] = 1
    position_ids = torch.arange(width).expand(len(sequences), width).contiguous()
    starts = [row * width for row in range(len(sequences))]
    return TokenBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        segment_ids=segment_ids,
        reward_index=_reward_index(sequences, starts, occurrence, read_at),
        response_mask=_response_mask(samples, starts, occurrence, input_ids),
    )


def packed(samples: Sequence[Sample], read_at: ReadAt, pad_id: int) -> TokenBatch:
    """One row that holds every distinct sequence end to end: no padding at all.

    Two sequences of three and two tokens: ids `[[1, 2, 3, 4, 5]]`, positions `[[0, 1, 2, 0, 1]]`, segments
    `[[1, 1, 1, 2, 2]]`.

    Args:
        samples: P samples of k sequences each.
        read_at: where a response's reward is read: `last` token (decoders) or `first` (encoders).
        pad_id: not used; here so that every layout is called alike.

    Returns:
        A `TokenBatch` of (1, T), T the number of tokens in the distinct sequences.
    """
    sequences, occurrence = _distinct(samples)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    starts: list[int] = [0, *lengths.cumsum(0)[:-1].tolist()]
    input_ids = torch.tensor([token for sequence in sequences for token in sequence], dtype=torch.long)[None]
    return TokenBatch(
        input_ids=input_ids,
        position_ids=torch.cat([torch.arange(len(sequence)) for sequence in sequences])[None],
        segment_ids=torch.repeat_interleave(torch.arange(1, len(sequences) + 1), lengths)[None],
        reward_index=_reward_index(sequences, starts, occurrence, read_at),
        response_mask=_response_mask(samples, starts, occurrence, input_ids),
    )


LAYOUTS: dict[LayoutName, Layout] = {"padded": padded, "packed": packed}
"""Every layout by its name in `conf/layout`."""


def _distinct(samples: Sequence[Sample]) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """The distinct sequences in order of first occurrence, and for each response of each sample which one it is."""
    widths = {len(sample.sequences) for sample in samples}
    if len(widths) != 1:
        raise ValueError(f"a batch needs samples of one k, got {sorted(widths)}; group response sets by their size")
    place: dict[tuple[int, ...], int] = {}
    occurrence = [
        [place.setdefault(tuple(sequence), len(place)) for sequence in sample.sequences] for sample in samples
    ]
    if () in place:
        raise ValueError("a sequence without tokens cannot be scored; drop empty rows before the layout")
    return list(place), occurrence


def _reward_index(
    sequences: Sequence[Sequence[int]], starts: Sequence[int], occurrence: Sequence[Sequence[int]], read_at: ReadAt
) -> Tensor:
    """(k, P): the flat position each response is read at."""
    ends = [start + len(sequence) - 1 for start, sequence in zip(starts, sequences, strict=True)]
    position = torch.tensor(ends if read_at == "last" else list(starts), dtype=torch.long)
    return position[torch.tensor(occurrence, dtype=torch.long)].T.contiguous()


def _response_mask(
    samples: Sequence[Sample], starts: Sequence[int], occurrence: Sequence[Sequence[int]], input_ids: Tensor
) -> Tensor:
    """(R, L) bool: tokens of the first (chosen) response of each sample, the prompt left out."""
    mask = torch.zeros(input_ids.numel(), dtype=torch.bool)
    for sample, which in zip(samples, occurrence, strict=True):
        start = starts[which[0]]
        mask[start + sample.prompt_length : start + len(sample.sequences[0])] = True
    return mask.view_as(input_ids)
