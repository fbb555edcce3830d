"""Tokens on a grid, and where to read it: samples, the segments of a grid, token batches.

A `TokenBatch` carries ids, positions, segments *and* `reward_index`, the flat position of the token each response is
read at, so models, losses, metrics and modules never learn which layout made it. This file knows tensors and nothing
else: no tokenizer, no model, no label.

Shapes: P pairs (or samples) in a batch, k responses a sample, R rows and L columns of the token grid.
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
        steady_tokens: longer sequences share no beginning with those of up to so many tokens; None where all may.

    Raises:
        ValueError: for another token.
    """

    read_at: ReadAt = "last"
    fast_layouts: tuple[LayoutName, ...] | None = None
    steady_tokens: int | None = None

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
        row: names the row of data that it is of: what is chosen in several samples of a row is one text of the LM loss,
            and what is chosen in several rows as many.
    """

    sequences: Sequence[Sequence[int]]
    prompt_length: int = 0
    row: int = 0


@dataclass(frozen=True)
class Segments:
    """A token grid cut into S runs of tokens, in the order of the grid, and which run each of them continues.

    A token sees the tokens of its own segment (decoders: those up to itself) and those of the segments that its own
    continues, one after the other up to one that begins a sequence. [prompt | chosen | rejected] of 3, 2 and 4 tokens
    is `Segments((3, 2, 4), (0, 1, 2))`: both responses continue the prompt and neither sees the other. The numbers are
    plain ones of the host, so that reading them makes no device wait.

    Args:
        lengths: S tokens; together all cells of the grid. No segment goes over the end of a row.
        back: S numbers: how many segments before it the segment stands that it continues, 0 for none. Counted so, the
            numbers stay as they are when grids are put end to end.
    """

    lengths: tuple[int, ...]
    back: tuple[int, ...]

    def twice(self) -> Segments:
        """Return the segments of a grid whose rows stand there twice, one copy after the other."""
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
        response_key: (k, P) long, a number that stands for each response's whole sequence: the same in every batch and
            on every rank. None for a grid made by hand.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor
    reward_index: Tensor
    response_index: Tensor
    segments: Segments | None = None
    read_cells: Tensor | None = None
    response_key: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Cells of the grid that are computed, padding included."""
        return self.input_ids.numel()
