"""`AnyRewardModel`: what a plain model, members of one backbone and an ensemble of models have in common.

Code that trains, scores or serves is typed by it, and never asks which of the three it was given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import RewardOutput
from lightning_rm.counts import tightest
from lightning_rm.models.backbone.positions import steady_tokens
from lightning_rm.tokens import LayoutName, ReadAt, Reading, TokenBatch

if TYPE_CHECKING:
    from lightning_rm.models.reward_model import RewardModel


class AnyRewardModel(nn.Module, ABC):
    """Reads a token batch and gives each response its reward, or one reward for each of its members.

    It holds no weight and no setting: those who inherit from it do.
    """

    pad_id: int

    @abstractmethod
    def forward(self, tokens: TokenBatch, keep_hidden: bool = False) -> RewardOutput:
        """Return rewards (k, P), or (k, M, P), in float32, and what `RewardOutput` holds beside them."""

    @property
    @abstractmethod
    def read_at(self) -> ReadAt:
        """Which token of a sequence its reward is read at."""

    @property
    @abstractmethod
    def fast_layouts(self) -> tuple[LayoutName, ...]:
        """The layouts that it honours at no cost."""

    @property
    @abstractmethod
    def max_tokens(self) -> int | None:
        """The longest sequence that it reads; None where it names no limit."""

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """H, the size of a feature."""

    @property
    @abstractmethod
    def plain_models(self) -> Sequence[RewardModel]:
        """The models with a backbone that answer: this one, or an ensemble's members."""

    @property
    def steady_tokens(self) -> int | None:
        """The longest sequence whose positions are scaled as those of all shorter ones; None where all are alike."""
        return tightest(*(steady_tokens(plain.backbone.config) for plain in self.plain_models))

    @property
    @abstractmethod
    def untrained_head(self) -> str | None:
        """Names the checkpoint that brought no head, while the head is still the random one it was given."""

    @abstractmethod
    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that make a reward of a feature, of all members."""

    @abstractmethod
    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """Return all other parameters."""

    @abstractmethod
    def lm_loss(self, output: RewardOutput, tokens: TokenBatch) -> Tensor:
        """Return the next-token loss on the tokens of chosen responses, a scalar."""

    @abstractmethod
    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        dtype: torch.dtype | None = None,
        facts: Mapping[str, Any] | None = None,
        write_beside: Callable[[Path], None] | None = None,
    ) -> None:
        """Write a folder that `lightning_rm.load_model` reads. See `backbone.export.export`."""

    def save_policy(self, folder: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write the language model that a plain model kept.

        Raises:
            ValueError: if there is none.
        """
        raise ValueError("a policy needs an LM head: load a causal checkpoint with keep_lm_head=True")

    def lm_head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of a kept LM head that are not the backbone's too."""
        return iter(())

    @property
    def reference_scale(self) -> tuple[float, float] | None:
        """Mean and standard deviation of its rewards on a reference set, where its folder names them."""
        return None

    @property
    @abstractmethod
    def reward_dtype(self) -> torch.dtype:
        """What rewards are computed in: float32, or float64 over a backbone in float64."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def reading(self) -> Reading:
        """How it reads batches, for a data module."""
        return Reading(self.read_at, self.fast_layouts, self.steady_tokens)

    @property
    def num_members(self) -> int:
        """M, the models whose votes are heard; 1 for a plain model."""
        return 1

    @property
    def num_rewards(self) -> int:
        """How many rewards `forward` gives of a response: M for members, 1 for whatever answers as one."""
        return 1

    def votes(self, tokens: TokenBatch) -> Tensor:
        """Return (k, M, P): every member's rewards, M = `num_members`."""
        reward: Tensor = self(tokens).reward
        return reward[:, None] if reward.ndim == 2 else reward

    def combine(self, votes: Tensor) -> Tensor:
        """Return one reward (..., P) of those of all members (..., M, P): the mean."""
        return votes.mean(-2)

    def member_adapters(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """Return the backbone's modules that members adapt, each with its adapter."""
        return ()
