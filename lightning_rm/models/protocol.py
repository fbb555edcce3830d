"""`AnyRewardModel`: what a plain model, members of one backbone and an ensemble have in common for whoever scores.

Callers that are typed by it never ask which of the three they were given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_rm.batch import LayoutName, ReadAt, RewardOutput, TokenBatch


class AnyRewardModel(Protocol):
    """Reads a token batch and gives each response its reward, or one reward for each of its members."""

    @property
    def num_members(self) -> int:
        """M, the models whose votes are heard; 1 for a plain model."""
        ...

    @property
    def num_rewards(self) -> int:
        """How many rewards `forward` gives of a response: M for members, 1 for whatever answers as one."""
        ...

    @property
    def reward_dtype(self) -> torch.dtype:
        """What rewards are computed in: float32, or float64 over a backbone in float64."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def read_at(self) -> ReadAt:
        """Which token of a sequence its reward is read at."""
        ...

    @property
    def pad_id(self) -> int:
        """The padding token."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The longest sequence that it reads; None where it names no limit."""
        ...

    @property
    def fast_layouts(self) -> tuple[LayoutName, ...]:
        """The layouts that it honours at no cost."""
        ...

    @property
    def untrained_head(self) -> str | None:
        """Names the checkpoint that brought no head, while the head is still the random one it was given."""
        ...

    def __call__(self, tokens: TokenBatch) -> RewardOutput:
        """Rewards (k, P), or (k, M, P), in `reward_dtype`."""
        ...

    def votes(self, tokens: TokenBatch) -> Tensor:
        """(k, M, P): every member's rewards, M = `num_members`."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """All modules inside it, itself first."""
        ...
