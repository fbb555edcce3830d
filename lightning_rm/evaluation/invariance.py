"""Invariance as a number: how far rewards move with what should not matter: batch, layout, padding, number format.

It knows models by the scoring engine alone.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lightning_rm.evaluation.items import Floats, Items
from lightning_rm.evaluation.rewards import Reading, score_items
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.tokens import LayoutName

LAYOUTS: tuple[LayoutName, ...] = ("padded", "packed", "shared_prefix")

NUM_IN_BFLOAT16 = 8
"""The items that are also scored in bfloat16, which some processors are slow at."""


def invariance(
    model: AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Items,
    reading: Reading,
) -> dict[str, float]:
    """Return the largest change of a reward, over the standard deviation of rewards, against each conversation on its
    own.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        items: a few dozen.
        reading: how it reads; the layout is replaced.

    Returns:
        `padded`, `packed`, `shared_prefix`, as far as the model's `fast_layouts` go: all conversations in batches of
        that layout; `bfloat16`: the layout it takes by itself, computed in that format; `ties in bfloat16`: the share
        of comparisons that tie there.
    """
    alone = _rewards(model, tokenizer, items, Reading(reading.max_tokens, reading.overlong, "padded", 1))
    scale = float(np.nanstd(alone)) or 1.0

    def moved(rewards: Floats, reference: Floats) -> float:
        return float(np.nanmax(np.abs(rewards - reference))) / scale

    found: dict[str, float] = {}
    for layout in LAYOUTS:
        if layout in model.fast_layouts:
            found[layout] = moved(
                _rewards(
                    model, tokenizer, items, Reading(reading.max_tokens, reading.overlong, layout, reading.batch_tokens)
                ),
                alone,
            )
    some = items[:NUM_IN_BFLOAT16]
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        rounded = _rewards(model, tokenizer, some, reading)
    found["bfloat16"] = moved(rounded, alone[: len(some), : rounded.shape[1]])
    found["ties in bfloat16"] = float((some.comparisons.margins(rounded) == 0).mean())
    return found


def _rewards(model: AnyRewardModel, tokenizer: PreTrainedTokenizerBase, items: Items, reading: Reading) -> Floats:
    return score_items(model, tokenizer, items, reading).rewards
