"""Whether a position in the middle of an epoch, as a checkpoint has it, still means the same pairs.

The trainer keeps the position itself. This file knows numbers and names; no trainer, no loader.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypedDict

Settings = Mapping[str, str | int | None]
"""All that the pairs of a micro-batch depend on, by the names a user sets them by."""


class Position(TypedDict):
    """A position in an epoch, as it stands in a checkpoint.

    Args:
        settings: those the run was started with.
        place: micro-batches of the epoch that were trained on, on each rank.
        num_batches: micro-batches of the whole epoch.
    """

    settings: dict[str, Any]
    place: int
    num_batches: int | float


def check_position(position: Position, settings: Settings) -> None:
    """Check a position against the settings of the run that would go on from it; between epochs it need not fit.

    Args:
        position: from the checkpoint.
        settings: of this run; `accumulate_grad_batches` is one of them.

    Raises:
        ValueError: if the settings differ.

    Warns:
        UserWarning: if the position is in the middle of an optimizer step, whose gradients no checkpoint holds.
    """
    place, before = position["place"], position["settings"]
    if not 0 < place < position["num_batches"]:
        return
    changed = [
        f"{name}={before.get(name)}, now {settings.get(name)}"
        for name in {**settings, **before}
        if before.get(name) != settings.get(name)
    ]
    if changed:
        raise ValueError(
            f"the checkpoint stands in the middle of an epoch, after micro-batch {place} of {position['num_batches']}, "
            f"which means other pairs in this run: it was written with {'; '.join(changed)}. Resume with the same "
            "settings, or from a checkpoint of the end of an epoch."
        )
    accumulate = settings["accumulate_grad_batches"]
    if isinstance(accumulate, int) and (lost := place % accumulate):
        warnings.warn(
            f"the checkpoint stands in the middle of an optimizer step: the gradients of {lost} micro-batches are "
            "lost; save where a step ends, by every_n_train_steps or a val_check_interval that is a multiple of "
            f"accumulate_grad_batches={accumulate}",
            stacklevel=2,
        )
