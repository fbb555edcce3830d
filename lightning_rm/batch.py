"""The types that travel between the rooms: samples, token batches, preference batches, rewards.

A `TokenBatch` says where to read. It carries ids, positions, segments *and* `reward_index`, the flat position of the
token each response is read at, so models, losses, metrics and modules never learn which layout made it. This file knows
tensors and nothing else: no tokenizer, no model, no file.

Shapes: P pairs (or samples) in a batch, k responses a sample, R rows and L columns of the token grid, H hidden units,
G groups of responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor

ReadAt = Literal["last", "first"]
"""The token a reward is read at: the last attended one for decoders, the first for encoders."""

LayoutName = Literal["padded", "packed", "shared_prefix"]
"""How samples are laid on the token grid; `data.batches.layouts` has a function for each."""


@dataclass(frozen=True)
class Reading:
    """How a model reads batches: all that a data module has to know of it. A model gives its own as `model.reading`.

    Args:
        read_at: the token that rewards are read at.
        fast_layouts: the layouts that the model honours at no cost; None for all that go with `read_at`.

    Raises:
        ValueError: for another token.
    """

    read_at: ReadAt = "last"
    fast_layouts: tuple[LayoutName, ...] | None = None

    def __post_init__(self) -> None:
        if self.read_at not in get_args(ReadAt):
            raise ValueError(f"read_at={self.read_at!r}; it must be one of {', '.join(get_args(ReadAt))}")


@dataclass(frozen=True)
class Tensors:
    """A frozen dataclass that Lightning can move: `.to(...)` and `.pin_memory()` reach every tensor in it."""

    def _map(self, name: str, *args: Any, **kwargs: Any) -> Self:
        def mapped(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(mapped(item) for item in cast("tuple[Any, ...]", value))
            return getattr(value, name)(*args, **kwargs) if isinstance(value, Tensor | Tensors) else value

        return replace(self, **{field.name: mapped(getattr(self, field.name)) for field in fields(self)})

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return a copy with every tensor moved as by `Tensor.to`.

        A copy to a GPU is not waited for, unless `non_blocking=False` says so: Lightning, which moves batches, says
        nothing.
        """
        target = args[0] if args else kwargs.get("device")
        if isinstance(target, torch.device | str | int) and torch.device(target).type == "cuda":
            kwargs.setdefault("non_blocking", True)
        return self._map("to", *args, **kwargs)

    def pin_memory(self) -> Self:
        """Return a copy with every tensor in pinned memory."""
        return self._map("pin_memory")


@dataclass(frozen=True)
class Sample:
    """k token sequences that answer one prompt.

    k=2 is a preference pair (chosen first), k=5 a MetaRM response group, k=16 best-of-n.

    Args:
        sequences: k lists of token ids, each a whole templated conversation.
        prompt_length: the leading tokens of every sequence that are the prompt's; a response is what follows. The LM
            loss reads it.
    """

    sequences: Sequence[Sequence[int]]
    prompt_length: int = 0


@dataclass(frozen=True)
class Segments:
    """A token grid cut into S runs of tokens, in the order of the grid, and which run each of them continues.

    A token sees the tokens of its own segment (decoders: those up to itself) and those of the segments that its own
    continues, one after the other up to one that begins a sequence. [prompt | chosen | rejected] of 3, 2 and 4 tokens
    is `Segments((3, 2, 4), (0, 1, 2))`: both responses continue the prompt and neither sees the other. The numbers are
    plain ones of the host, so that reading them makes no device wait.

    Args:
        lengths: S tokens; together all cells of the grid. No segment goes over the end of a row.
        back: S numbers: how many segments before it the segment stands that it continues, 0 for none. So counted, two
            grids put end to end have their numbers put end to end.
    """

    lengths: tuple[int, ...]
    back: tuple[int, ...]

    def twice(self) -> Segments:
        """Those of a grid whose rows stand there twice, one copy after the other."""
        return Segments(self.lengths * 2, self.back * 2)


@dataclass(frozen=True)
class TokenBatch(Tensors):
    """Tokens on a grid of R rows and L columns, and where to read each response's reward.

    Args:
        input_ids: (R, L) long.
        position_ids: (R, L) long, each token's place in its own sequence: `[0, 1, 2, 0, 1]` is a row of two sequences.
        mask: (R, L) bool, False for padding.
        reward_index: (k, P) long, flat positions into the grid (`row * L + column`) of the token each response is read
            at: the last token of the sequence for decoders, the first for encoders. Two responses may share one
            position: a sequence that occurs twice in a batch is computed once.
        response_index: (2, N) long, flat positions of the N tokens of chosen responses (sequence 0 of each sample) in
            row 1 and of the token before each of them in row 0, for the LM loss.
        segments: which tokens see each other; None where every row is one sequence and padding after it.
        read_cells: (U,) long, the distinct positions of `reward_index`, ascending: a backbone's last layer is computed
            there and nowhere else. None, for a grid made by hand or another `reward_index`, computes all of it.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    reward_index: Tensor
    response_index: Tensor
    segments: Segments | None = None
    read_cells: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Cells of the grid that are computed, padding included."""
        return self.input_ids.numel()


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
"""The names of before, of the same things."""
