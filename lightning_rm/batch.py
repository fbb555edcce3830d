"""What travels between the rooms: preference batches, groups of responses, and what a reward model says of them.

Each carries a `TokenBatch` (`lightning_rm.tokens`), which says where to read, and beside it what losses and metrics
need to know. This file knows tensors and nothing else: no tokenizer, no model, no file.

Shapes: P pairs (or samples) in a batch, k responses a sample, H hidden units, G groups of responses, A attributes; R
rows and L columns of the token grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from lightning_rm.tokens import LayoutName, ReadAt, Reading, Sample, Segments, Tensors, TokenBatch

__all__ = [
    "GroupBatch",
    "LayoutName",
    "PreferenceBatch",
    "ReadAt",
    "Reading",
    "ResponseBatch",
    "RewardOutput",
    "Routing",
    "Sample",
    "Segments",
    "Tensors",
    "TokenBatch",
    "default_columns",
    "group_batch",
    "preference_batch",
    "response_batch",
]


@dataclass(frozen=True)
class GroupBatch(Tensors):
    """G groups of responses without labels, each to one prompt: what a policy says, for MetaRM and for evaluation.

    Groups may differ in their number of responses; k is the largest. A smaller group is filled up with its first
    response again, which the layouts compute once.

    Args:
        tokens: the token grid, with `reward_index` (k, G).
        present: (k, G) bool, False where a group is filled up.
        gold: (k, G) float, the gold reward of made responses, NaN elsewhere.
        agreed: (k, k, G) bool, True for two responses whose order all voters agree on; True everywhere where no voter
            was asked.
        row: (G,) long, the group's row in its data set.
        valid: (G,) bool, False for a group that only fills the batch of a rank that has run out of groups.
        data_set: the data set's name.
    """

    tokens: TokenBatch
    present: Tensor
    gold: Tensor
    agreed: Tensor
    row: Tensor
    valid: Tensor
    data_set: str = "responses"

    @property
    def num_groups(self) -> int:
        """G, the groups of this batch on this rank."""
        return self.present.shape[1]


@dataclass(frozen=True)
class PreferenceBatch(Tensors):
    """P preference pairs: their tokens, their targets, and what metrics need to know of them.

    Row 0 of every (2, P) tensor is the chosen response, row 1 the rejected one.

    Args:
        tokens: the token grid, with `reward_index` (2, P).
        label: (P,) float, the probability that chosen is preferred; 1 for a plain pair.
        margin: (P,) float, the target margin; 0 where the data has none.
        weight: (P,) float, the weight of a pair in the mean; 1 where the data has none.
        level: (P,) float, how far chosen is preferred, a whole number from -K to K, NaN where nobody said.
        length: (2, P) long, tokens of each response without its prompt, for the length-only baseline.
        subset: (P,) long, index into `subset_names`.
        clean: (P,) float, 1 where chosen is truly better, 0 where the label is wrong, NaN where nobody knows.
        gold_margin: (P,) float, the gold margin of made data, NaN elsewhere.
        strength: (P,) float, mean of the voters' margins, NaN where the data is not annotated.
        scores: (2, P, A) float, A scores of each response, NaN for gaps and where nobody scored.
        group: (P,) long, the same number for pairs of one list of responses; each list of the batch is whole.
        side: (2, P) long, which of its list's responses chosen and rejected are; 0 and 1 for a plain pair.
        row: (P,) long, the pair's row in its data set.
        valid: (P,) bool, False for a pair that only fills the batch of a rank that has run out of pairs: metrics leave
            it out, and in training its batch has scale 0.
        subset_names: every subset name of the data set, the same on all ranks.
        attributes: what the A scores are called, the same on all ranks.
        data_set: the data set's name, so that metrics of several evaluation sets are kept apart.
        scale: what to multiply this micro-batch's mean loss by so that the optimizer steps on the mean over the global
            batch's pairs: `pairs here * world size * accumulate_grad_batches / pairs in the step`, where a list of
            scored responses counts once and the weights of its pairs add up to it. Lightning divides by
            accumulate_grad_batches, in a short last step too, and averages gradients over ranks.
        text_share: what a loss that is a mean over the tokens of chosen responses is multiplied by besides, so that it
            is one over those of the global batch: the share of its tokens that are here, over the share of its pairs.
        responses: for MetaRM, on the first micro-batch of an optimizer step: one batch of response groups for each
            micro-batch of the step. Empty elsewhere.
    """

    tokens: TokenBatch
    label: Tensor
    margin: Tensor
    weight: Tensor
    level: Tensor
    length: Tensor
    subset: Tensor
    clean: Tensor
    gold_margin: Tensor
    strength: Tensor
    scores: Tensor
    group: Tensor
    side: Tensor
    row: Tensor
    valid: Tensor
    subset_names: tuple[str, ...] = ("all",)
    attributes: tuple[str, ...] = ("score",)
    data_set: str = "train"
    scale: float = 1.0
    text_share: float = 1.0
    responses: tuple[GroupBatch, ...] = ()

    @property
    def num_pairs(self) -> int:
        """P, the pairs of this batch on this rank."""
        return self.label.shape[0]

    @property
    def is_filler(self) -> bool:
        """Whether this training batch is one pair that is not valid; known without a look at the device."""
        return self.scale == 0.0


@dataclass(frozen=True)
class Routing(Tensors):
    """What the routers of a mixture of experts did with a batch in training, as means over its layers.

    Args:
        loss: a scalar, how unevenly tokens were spread over experts; see `losses.router.router_loss`.
        dead: a scalar, the share of experts that no token went to.
        weight: of the loss in training; 0 for none.
    """

    loss: Tensor
    dead: Tensor
    weight: float = 0.0


@dataclass(frozen=True)
class RewardOutput(Tensors):
    """What a reward model says of a token batch.

    Args:
        reward: (k, P) float32, or (k, M, P) for M members on one backbone.
        feature: (k, P, H), the hidden state that the head reads, in the backbone's dtype.
        hidden: (R, L, H), every hidden state, only where asked for (the LM loss needs it); else None.
        routing: of a mixture of experts in training; else None.
    """

    reward: Tensor
    feature: Tensor
    hidden: Tensor | None = None
    routing: Routing | None = None

    @property
    def chosen(self) -> Tensor:
        """(P,) or (M, P): rewards of the chosen responses."""
        return self.reward[0]

    @property
    def rejected(self) -> Tensor:
        """(P,) or (M, P): rewards of the rejected responses."""
        return self.reward[1]

    def averaged(self) -> RewardOutput:
        """Return the mean over members, (k, P); a single model's output as it is."""
        return self if self.reward.ndim == 2 else replace(self, reward=self.reward.mean(1))


def default_columns(num_pairs: int) -> dict[str, Tensor]:
    """Return the columns of a `PreferenceBatch` for pairs that carry nothing but their tokens: label 1, margin 0,
    weight 1.
    """
    nan = torch.full((num_pairs,), float("nan"))
    return {
        "label": torch.ones(num_pairs),
        "margin": torch.zeros(num_pairs),
        "weight": torch.ones(num_pairs),
        "level": nan.clone(),
        "length": torch.zeros(2, num_pairs, dtype=torch.long),
        "subset": torch.zeros(num_pairs, dtype=torch.long),
        "clean": nan,
        "gold_margin": nan.clone(),
        "strength": nan.clone(),
        "scores": torch.full((2, num_pairs, 1), float("nan")),
        "group": torch.arange(num_pairs),
        "side": torch.tensor([[0], [1]]).repeat(1, num_pairs),
        "row": torch.arange(num_pairs),
        "valid": torch.ones(num_pairs, dtype=torch.bool),
    }


def group_batch(tokens: TokenBatch, **columns: Any) -> GroupBatch:
    """Return a `GroupBatch` from tokens alone, all of its responses present: for notebooks and tests."""
    k, groups = tokens.reward_index.shape
    values: dict[str, Any] = {
        "present": torch.ones(k, groups, dtype=torch.bool),
        "gold": torch.full((k, groups), float("nan")),
        "agreed": torch.ones(k, k, groups, dtype=torch.bool),
        "row": torch.arange(groups),
        "valid": torch.ones(groups, dtype=torch.bool),
    }
    return GroupBatch(tokens=tokens, **(values | columns))


def preference_batch(tokens: TokenBatch, **columns: Any) -> PreferenceBatch:
    """Return a `PreferenceBatch` from tokens alone, with any column overridden by name: for notebooks and tests."""
    values = default_columns(tokens.reward_index.shape[1]) | columns
    return PreferenceBatch(tokens=tokens, **cast(Any, values))


ResponseBatch = GroupBatch
response_batch = group_batch
"""Earlier names of the same things, still understood."""
