"""Layouts: how samples are laid on the token grid. Each is a function `list[Sample] -> TokenBatch`.

A layout knows token ids and nothing of what they mean. Whatever the layout, rewards and gradients are those of scoring
each sequence alone; the tests hold every layout to that.

A sequence that stands several times in a batch is computed once and read several times. Data sets in which a prompt has
many pairs (votes over 33 arguments, all pairs of 4 answers) gain as much as they repeat. `shared_prefix` goes further:
what sequences have in common at their beginnings is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lightning_rm.data.beginnings import num_shared
from lightning_rm.tokens import LayoutName, ReadAt, Sample, Segments, TokenBatch

Layout = Callable[[Sequence[Sample], ReadAt, int], TokenBatch]

SHORTEST_SHARED = 8
"""Common tokens are not shared where it would save fewer: a segment costs an attention call in every layer."""


def padded(samples: Sequence[Sample], read_at: ReadAt, pad_id: int) -> TokenBatch:
    """Return a grid with one row for each sequence, padded on the right to the longest.

    Two pairs that share a response: `[[1, 2, 3], [4, 5, pad], [1, 6, pad]]` with reward_index
    `[[2, 2], [4, 7]]` (read at the last token, three columns a row).

    Args:
        samples: P samples of k sequences each.
        read_at: where a response's reward is read: `last` token (decoders) or `first` (encoders).
        pad_id: the id that fills the rest of a row; the mask hides it.

    Returns:
        A `TokenBatch` of (R, L), R the number of distinct sequences.
    """
    sequences, occurrence = _distinct(samples)
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = True
    places = [torch.arange(len(sequence)) + row * width for row, sequence in enumerate(sequences)]
    reward_index = _reward_index(places, occurrence, read_at)
    return TokenBatch(
        input_ids=input_ids,
        position_ids=torch.arange(width).expand(len(sequences), width).contiguous(),
        mask=mask,
        reward_index=reward_index,
        response_index=_response_index(samples, places, occurrence),
        read_cells=reward_index.unique(),
        response_key=_response_key(samples),
    )


def packed(samples: Sequence[Sample], read_at: ReadAt, pad_id: int) -> TokenBatch:
    """Return one row that holds every distinct sequence end to end: no padding at all.

    Two sequences of three and two tokens: ids `[[1, 2, 3, 4, 5]]`, positions `[[0, 1, 2, 0, 1]]`, segments of 3 and 2.

    Args:
        samples: P samples of k sequences each.
        read_at: where a response's reward is read: `last` token (decoders) or `first` (encoders).
        pad_id: not used; here so that every layout is called alike.

    Returns:
        A `TokenBatch` of (1, T), T the number of tokens in the distinct sequences.
    """
    sequences, occurrence = _distinct(samples)
    lengths = [len(sequence) for sequence in sequences]
    places = list(torch.arange(sum(lengths)).split(lengths))
    return _one_row(sequences, [0] * len(sequences), [0] * len(sequences), samples, places, occurrence, read_at)


def shared_prefix(
    samples: Sequence[Sample], read_at: ReadAt, pad_id: int, steady_tokens: int | None = None
) -> TokenBatch:
    """Return one row that holds every common beginning once: [prompt | chosen | rejected], and no padding.

    Two pairs, the first of them with a prompt of three tokens: ids `[[1, 2, 3, 4, 5, 6, 7, 8, 9]]` are the prompt 1 2 3
    with the responses 4 5 and 6, and the sequences 7 and 8 9; positions `[[0, 1, 2, 3, 4, 3, 0, 0, 1]]`, segments of
    3, 2, 1, 1 and 2 tokens; the second and the third continue the first.

    Beginnings are found in the token ids, whatever they belong to: the responses to one prompt, several pairs of one
    prompt, a prompt that goes on where another ends, a system prompt before everything. Only those that save
    `SHORTEST_SHARED` tokens are shared.

    Args:
        samples: P samples of k sequences each.
        read_at: `last`: what a decoder reads.
        pad_id: not used; here so that every layout is called alike.
        steady_tokens: longer sequences share nothing with those of up to so many tokens, whose positions the backbone
            scales otherwise; None where all may share.

    Returns:
        A `TokenBatch` of (1, T), T the number of tokens that are left to compute.

    Raises:
        ValueError: for `read_at="first"`: an encoder's prompt sees its response, so two responses have two prompts.
    """
    if read_at == "first":
        raise ValueError(
            "layout=shared_prefix: in an encoder the prompt sees the response, so a prompt cannot be computed once for "
            "two of them; use layout=packed or padded"
        )
    sequences, occurrence = _distinct(samples)
    segments: list[tuple[int, ...]] = []
    starts, back = list[int](), list[int]()
    places: list[list[Tensor]] = [[] for _ in sequences]
    num_tokens = 0
    # Bundles of sequences that are equal up to a token, and the segment that ends there. Segments that continue another
    # come after it.
    limit = len(max(sequences, key=len)) if steady_tokens is None else steady_tokens
    kinds = ([number for number, one in enumerate(sequences) if (len(one) > limit) is long] for long in (True, False))
    bundles = [(alike, 0, -1) for alike in kinds if alike]
    while bundles:
        bundle, start, parent = bundles.pop()
        end = _num_common(sequences, bundle)
        if not _worth_sharing(end - start, len(bundle), first=start == 0):
            bundles += [(alike, start, parent) for alike in _by_token(sequences, bundle, end)]
            continue
        segments.append(sequences[bundle[0]][start:end])
        starts.append(start)
        back.append(len(segments) - 1 - parent if start else 0)
        for number in bundle:
            places[number].append(torch.arange(num_tokens, num_tokens + end - start))
        num_tokens += end - start
        if longer := [number for number in bundle if len(sequences[number]) > end]:
            bundles.append((longer, end, len(segments) - 1))
    whole = [torch.cat(parts) for parts in places]
    return _one_row(segments, starts, back, samples, whole, occurrence, read_at)


LAYOUTS: dict[LayoutName, Layout] = {"padded": padded, "packed": packed, "shared_prefix": shared_prefix}
"""Every layout by its name in `conf/layout`."""


def layout_of(name: LayoutName, steady_tokens: int | None = None) -> Layout:
    """Return a layout for a backbone; `steady_tokens` is its `Reading.steady_tokens`."""
    return partial(shared_prefix, steady_tokens=steady_tokens) if name == "shared_prefix" else LAYOUTS[name]


def _worth_sharing(num_tokens: int, num_sequences: int, first: bool) -> bool:
    """Tell whether tokens that some sequences have in common become a segment of their own.

    A first segment makes every sequence after it attend to two, so it must save each of them `SHORTEST_SHARED` tokens;
    a later one is one more call for all of them, and must save as many in all. A sequence alone is always a segment.
    """
    if num_sequences == 1:
        return True
    return (num_tokens if first else num_tokens * (num_sequences - 1)) >= SHORTEST_SHARED


def _by_token(sequences: Sequence[tuple[int, ...]], bundle: Sequence[int], place: int) -> list[list[int]]:
    """Return the sequences of a bundle by their token at a place, in reverse: bundles are taken from the end."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for number in bundle:
        alike.setdefault(sequences[number][place : place + 1], []).append(number)
    return list(alike.values())[::-1]


def _num_common(sequences: Sequence[tuple[int, ...]], bundle: Sequence[int]) -> int:
    """Count the tokens that all sequences of a bundle begin with: those that its first and last in sorted order
    share.
    """
    first, last = (choose(sequences[number] for number in bundle) for choose in (min, max))
    return num_shared(first, last)


def _distinct(samples: Sequence[Sample]) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Return the distinct sequences by first occurrence, and for each response of each sample which one it is."""
    widths = {len(sample.sequences) for sample in samples}
    if len(widths) != 1:
        raise ValueError(f"a batch needs samples of one k, got {sorted(widths)}; put groups of one size together")
    place: dict[tuple[int, ...], int] = {}
    occurrence = [
        [place.setdefault(tuple(sequence), len(place)) for sequence in sample.sequences] for sample in samples
    ]
    if () in place:
        raise ValueError("a sequence without tokens cannot be scored; drop empty rows before the layout")
    return list(place), occurrence


def _one_row(
    segments: Sequence[Sequence[int]],
    starts: Sequence[int],
    back: Sequence[int],
    samples: Sequence[Sample],
    places: Sequence[Tensor],
    occurrence: Sequence[Sequence[int]],
    read_at: ReadAt,
) -> TokenBatch:
    """Return a grid of one row.

    It holds segments end to end, each with the position of its first token and what it continues.
    """
    input_ids = torch.tensor([token for segment in segments for token in segment], dtype=torch.long)[None]
    positions = [torch.arange(start, start + len(segment)) for start, segment in zip(starts, segments, strict=True)]
    reward_index = _reward_index(places, occurrence, read_at)
    return TokenBatch(
        input_ids=input_ids,
        position_ids=torch.cat(positions)[None],
        mask=torch.ones_like(input_ids, dtype=torch.bool),
        reward_index=reward_index,
        response_index=_response_index(samples, places, occurrence),
        segments=Segments(tuple(len(segment) for segment in segments), tuple(back)),
        read_cells=reward_index.unique(),
        response_key=_response_key(samples),
    )


def _reward_index(places: Sequence[Tensor], occurrence: Sequence[Sequence[int]], read_at: ReadAt) -> Tensor:
    """Return (k, P), the flat position that each response is read at; `places` are those of each sequence's tokens."""
    position = torch.stack([place[-1 if read_at == "last" else 0] for place in places])
    return position[torch.tensor(occurrence, dtype=torch.long)].T.contiguous()


def _response_index(samples: Sequence[Sample], places: Sequence[Tensor], occurrence: Sequence[Sequence[int]]) -> Tensor:
    """Return (2, N), the token before and the token, of each chosen response; one in two samples of a row counts once.

    So it depends on rows alone how often a response counts, not on which of them meet in a batch.
    """
    prompt_lengths: dict[tuple[int, int], int] = {}
    for sample, which in zip(samples, occurrence, strict=True):
        chosen = sample.row, which[0]
        prompt_lengths[chosen] = min(sample.prompt_length, prompt_lengths.get(chosen, sample.prompt_length))
    steps = [
        torch.stack([places[number][:-1], places[number][1:]])[:, max(length, 1) - 1 :]
        for (_, number), length in prompt_lengths.items()
    ]
    return torch.cat(steps, dim=1)


def _response_key(samples: Sequence[Sample]) -> Tensor:
    """Return (k, P), 64 bits that stand for each sequence in any batch; Python hashes numbers alike everywhere."""
    return torch.tensor([[hash(tuple(sequence)) for sequence in sample.sequences] for sample in samples]).T.contiguous()
