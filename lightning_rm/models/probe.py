"""A probe: three short sequences, by themselves and laid out, before a family that no test has seen is trusted.

Transformers gets new families faster than tests do. Where the rewards of sequences that share a row are not those that
transformers' own forward gives each alone, every sequence gets a row of its own; where rows differ too, loading is an
error. It knows a model and small grids; no data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
import transformers
from torch import Tensor, nn

from lightning_rm.models.backbone import settings
from lightning_rm.models.backbone.contexts import evaluating, quiet, seeded
from lightning_rm.models.backbone.families import is_proven
from lightning_rm.tokens import Segments, TokenBatch

if TYPE_CHECKING:
    from lightning_rm.models.reward_model import RewardModel

BEGINNING, RESTS = 2, (0, 3, 1)
"""Tokens that three sequences have in common, and those that each goes on with: 2, 5 and 3 in all."""

WINDOW = 3
"""Put in the place of a backbone's window while it is probed: shorter than the longest sequence."""

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-5}
"""What rewards of a layout may differ by, relative to the largest, by a backbone's dtype; 1e-2 in half precision."""

ROWS = {torch.float64: 1e-6, torch.float32: 1e-3}
"""The same of padded rows, whose difference also says what rounding does here; 5e-2 in half precision."""


def hold_to_layouts(model: RewardModel) -> None:
    """Probe a model of a family that no test has seen, and say once why a decoder gets rows, where it does.

    Raises:
        ValueError: if rewards of padded rows are not those of transformers' own forward.
    """
    if not is_proven(model.backbone.config):
        with torch.no_grad(), evaluating(model), _short_windows(cast(nn.Module, model.backbone)), quiet():
            _probe(model)
    settings.say_rows(model.backbone.config, model.architecture)


def _probe(model: RewardModel) -> None:
    """Probe a model with about forty tokens in six forwards."""
    dtype = model.backbone.dtype
    ids = _sequences(model)
    expected, rows = _off_in_rows(model, ids)
    if model.architecture.packs:
        laid = [_packed(ids), _shared(ids)] if model.causal else [_packed(ids)]
        worst = max(_off_if_read(model, tokens, expected) for tokens in laid)
        if not worst <= max(10 * rows, ROUNDING.get(dtype, 1e-2)) or not rows <= ROWS.get(dtype, 5e-2):
            _give_rows(model, max(worst, rows))
            _, rows = _off_in_rows(model, ids)
    if not rows <= ROWS.get(dtype, 5e-2):
        raise ValueError(
            f"{model.backbone.config.model_type}: rewards read at the {model.read_at} token are off by {rows:.1g} from "
            f"those of {type(model.backbone).__name__} in transformers {transformers.__version__}, relative to the "
            "largest of three sequences; this backbone cannot be used here"
        )


def _off_in_rows(model: RewardModel, ids: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Return what transformers' own classifier says of each sequence alone, and how far from it padded rows are."""
    rewards = [model.backbone(input_ids=one[None], attention_mask=torch.ones_like(one)[None]).logits for one in ids]
    expected = torch.cat(rewards)[:, 0].double()
    return expected, _off(model, _padded(ids, model.pad_id), expected)


def _give_rows(model: RewardModel, off: float) -> None:
    reason = f"sequences that shared a row were off by {off:.1g} when it was probed"
    own = "sdpa" if type(model.backbone)._supports_sdpa else "eager"  # pyright: ignore[reportPrivateUsage]
    model.backbone.set_attn_implementation(own)
    model.architecture = replace(model.architecture, packs=False, attention=own, why_rows=reason)
    model.last_layer = "whole"
    warnings.warn(
        f"{model.backbone.config.model_type} in transformers {transformers.__version__}: {reason}; every sequence gets "
        "a row of its own (layout=padded)",
        stacklevel=2,
    )


def _sequences(model: RewardModel) -> list[Tensor]:
    """Return three sequences of distinct ids, none of them the padding token, an end or a beginning."""
    config: Any = model.backbone.config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    named = {model.pad_id, config.bos_token_id, *ends}
    with seeded(0):
        order = torch.randperm(min(config.vocab_size, 4096)).tolist()
    free = torch.tensor([token for token in order if token not in named][: BEGINNING + sum(RESTS)])
    beginning, *rests = free.to(model.device).split([BEGINNING, *RESTS])
    return [torch.cat([beginning, rest]) for rest in rests]


def _off(model: RewardModel, tokens: TokenBatch, expected: Tensor) -> float:
    found = model(tokens).reward[:, 0].double()
    return float((found - expected).abs().max() / expected.abs().max())


def _off_if_read(model: RewardModel, tokens: TokenBatch, expected: Tensor) -> float:
    """Return `_off`, or infinity where a shared row is more than the model's code can read.

    Code that keeps a state for each sequence is an example.
    """
    try:
        return _off(model, tokens, expected)
    except RuntimeError:
        return math.inf


def _padded(ids: Sequence[Tensor], pad_id: int) -> TokenBatch:
    grid = nn.utils.rnn.pad_sequence(list(ids), batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(one) for one in ids], device=grid.device)
    places = torch.arange(grid.shape[1], device=grid.device)
    last = torch.arange(len(ids), device=grid.device) * grid.shape[1] + lengths - 1
    return TokenBatch(
        grid, places.expand_as(grid).contiguous(), places < lengths[:, None], last[:, None], lengths.new_zeros(2, 0)
    )


def _packed(ids: Sequence[Tensor]) -> TokenBatch:
    lengths = [len(one) for one in ids]
    return _row(ids, [0] * len(ids), Segments(tuple(lengths), (0,) * len(ids)))


def _shared(ids: Sequence[Tensor]) -> TokenBatch:
    """[beginning | rest | rest]: the first sequence is the beginning, and the others continue it."""
    beginning, *others = ids
    rests = [one[len(beginning) :] for one in others]
    segments = Segments(tuple(map(len, (beginning, *rests))), tuple(range(len(ids))))
    return _row([beginning, *rests], [0, *[len(beginning)] * len(rests)], segments)


def _row(parts: Sequence[Tensor], starts: Sequence[int], segments: Segments) -> TokenBatch:
    ids = torch.cat(list(parts))[None]
    places = [torch.arange(len(part)) + start for part, start in zip(parts, starts, strict=True)]
    last = torch.tensor(segments.lengths).cumsum(0).to(ids.device) - 1
    return TokenBatch(
        input_ids=ids,
        position_ids=torch.cat(places)[None].to(ids.device),
        mask=torch.ones_like(ids, dtype=torch.bool),
        reward_index=last[:, None],
        response_index=ids.new_zeros(2, 0),
        segments=segments,
        read_cells=last,
    )


@contextmanager
def _short_windows(backbone: nn.Module) -> Generator[None]:
    """Make a backbone's windows, where it has any, shorter than what is probed."""
    holders: list[Any] = [cast(Any, backbone).config, *backbone.modules()]
    windowed = [(one, one.sliding_window) for one in holders if isinstance(getattr(one, "sliding_window", None), int)]
    try:
        for holder, _ in windowed:
            holder.sliding_window = WINDOW
        yield
    finally:
        for holder, window in windowed:
            holder.sliding_window = window
