"""How pairs become batches: what a user says of them, checked before anything is read. It knows settings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from lightning_rm.counts import check_counts, given
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.batches.orders import Order
from lightning_rm.options import check_words
from lightning_rm.tokens import LayoutName, ReadAt


@dataclass(frozen=True)
class Batching:
    """How pairs become batches, the same for every set.

    Args:
        layout: how token sequences are laid on a grid.
        read_at: the token that rewards are read at.
        pad_id: fills the grid.
        order: of training pairs.
        batch_pairs: pairs of a micro-batch on each device; None where `batch_tokens` cuts them.
        batch_tokens: the most grid tokens of a micro-batch.
        eval_batch_pairs: pairs of an evaluation batch on each device; None takes the training size.
        num_workers: worker processes of each loader.
        seed: of the order of training pairs.
        steady_tokens: of the model's `Reading`.

    Raises:
        ValueError: if `batch_pairs` and `batch_tokens` are both set.
    """

    layout: LayoutName
    read_at: ReadAt
    pad_id: int
    order: Order
    batch_pairs: int | None
    batch_tokens: int | None
    eval_batch_pairs: int | None
    num_workers: int
    seed: int
    steady_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.batch_pairs is not None and self.batch_tokens is not None:
            raise ValueError(
                f"batch_pairs={self.batch_pairs} and batch_tokens={self.batch_tokens} are both set, and one of them "
                "cuts batches; set the other to None"
            )

    def shares(self, num_pairs: int | None) -> bool:
        """Tell whether batches of so many pairs are cut by the tokens of a grid that has a common prompt once."""
        return num_pairs is None and self.batch_tokens is not None and self.layout == "shared_prefix"


def check_batching(
    layout: LayoutSetting,
    read_at: ReadAt,
    order: Order,
    batch_pairs: int | None,
    batch_tokens: int | None,
    eval_batch_pairs: int | None,
) -> None:
    """Check what a user says of batches, before anything is read.

    Raises:
        ValueError: if a size is missing or below 1, a word is not known, or an encoder is to share prefixes.
    """
    if batch_pairs is None and batch_tokens is None:
        raise ValueError("batch_pairs and batch_tokens are both None; set one of them")
    check_counts(1, **given(batch_pairs=batch_pairs, batch_tokens=batch_tokens, eval_batch_pairs=eval_batch_pairs))
    check_words((*LAYOUTS, "auto"), layout=layout)
    check_words(get_args(Order), order=order)
    if layout == "shared_prefix" and read_at == "first":
        raise ValueError(
            "layout=shared_prefix: an encoder's prompt sees the response and cannot be computed once for two of "
            "them; use layout=packed, padded or auto"
        )
