"""Shapes that go together: one value a pair, so that no loss broadcasts P pairs to P x P, as (P, 1) with (P,) would."""

from __future__ import annotations

from torch import Tensor


def check_alike(chosen: Tensor, rejected: Tensor) -> None:
    """Check that rewards of chosen and of rejected responses are of one shape.

    Raises:
        ValueError: if they are not.
    """
    if chosen.shape != rejected.shape:
        raise ValueError(
            f"chosen has shape {tuple(chosen.shape)} and rejected {tuple(rejected.shape)}; they must agree"
        )


def check_one_a_pair(rewards: Tensor, **columns: Tensor | float) -> None:
    """Check that what goes with rewards (..., P) is a number, or has one value a pair, or one a reward.

    Args:
        rewards: or whatever the columns go with.
        **columns: by the names of the arguments.

    Raises:
        ValueError: for the first of another shape.
    """
    of_pairs, of_all = rewards.shape[-1:], rewards.shape
    for name, value in columns.items():
        if isinstance(value, Tensor) and value.ndim and value.shape not in (of_pairs, of_all):
            raise ValueError(f"{name} has shape {tuple(value.shape)}; one value a pair has {tuple(of_pairs)}")
