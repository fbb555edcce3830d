"""Which pairs every rank reads in every micro-step of an epoch, the same for the same seed.

Every rank computes the whole plan of an epoch alike and takes its part. A plan is a list of micro-steps, each with one
batch for every rank; `accumulate` micro-steps make an optimizer step. No pair is dropped and none is read twice: where
the last micro-step has too few batches, its largest are halved until every rank has one; where it has too few pairs, a
rank gets a filler, a pair that is not valid and whose scale is 0. This file knows lengths and indices: no tokens, no
tensors, no trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lightning_rm.data.batches.orders import (
    CURRICULA,
    Order,
    Rows,
    by_length,
    by_prompt,
    by_strength,
    cut_by_pairs,
    cut_by_tokens,
    grid_parts,
    spread,
)
from lightning_rm.data.batches.share import Span, scale_of, step_around
from lightning_rm.options import check_words
from lightning_rm.tokens import LayoutName

PLAN_VERSION = 4
"""Changes whenever the same settings come to mean another order of pairs."""

WINDOW = 64
"""Micro-steps whose pairs are sorted by length together: enough for even lengths, few enough to stay random."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one rank reads in one micro-step.

    Args:
        rows: P row numbers of the data set.
        valid: P flags, False for a filler.
        scale: what the mean loss of these pairs is multiplied by; see `share.scale_of`.
        text_share: what a mean over these pairs' text is multiplied by besides, for the mean over the text of the step:
            the share of its text that is here, over the share of its pairs.
        response_steps: on the first micro-batch of an optimizer step that is read, where groups of responses go with
            the pairs: the micro-steps of that step, counted from the start of the run. Empty elsewhere.
    """

    rows: tuple[int, ...]
    valid: tuple[bool, ...]
    scale: float
    text_share: float = 1.0
    response_steps: tuple[int, ...] = ()


class PairBatchSampler:
    """Yields one rank's `MicroBatch`es of an epoch.

    Orders, each new in every epoch: `random`; `length`, batches of pairs alike in length, in random order; `prompt`,
    batches of pairs that share responses, which the layouts compute once; `strongest_first` and `weakest_first`, by
    strength, the same in every epoch. In order `random`, the pairs of an optimizer
    step depend only on how many a step reads, not on how ranks and micro-steps divide them; in order `length`, those
    of a micro-step only on how many it reads over all ranks.

    With a token budget the batches are composed once and every epoch shuffles them: trainers rely on epochs of one
    length.

    Args:
        lengths: (N, k) tokens of the sequences of each row, 0 where it has fewer than k: a pair's are its chosen and
            its rejected one.
        prompt_index: (N,) one number a prompt; None takes every pair for one of its own prompt.
        num_pairs: pairs of a micro-batch. Exactly one of num_pairs and num_tokens is set.
        num_tokens: the most grid tokens of a micro-batch, as `token_cost` counts them.
        order: `random`, `length`, `prompt`, `strongest_first` or `weakest_first`.
        token_cost: of a batch's distinct sequences, `padded` is their number times the longest, `packed` their sum;
            `shared_prefix` is the sum of its distinct prompts and responses.
        sequence_index: (N, 2) or (N, 1) one number a distinct sequence; None takes every sequence for distinct.
        prompts: (N,) tokens of each pair's prompt that the grid shares and (N,) one number a distinct prompt, for a
            budget of `shared_prefix`; None for none.
        steady_tokens: as `layouts.shared_prefix` has it, for the same budget.
        strength: (N,) what the orders by strength sort by.
        text_lengths: (N,) tokens of each row's chosen responses, for `MicroBatch.text_share`; None takes every row to
            have as many as the others.
        rank: which rank's part to yield.
        world_size: the number of ranks.
        accumulate: micro-steps an optimizer step.
        seed: of every order.
        shuffle: False gives one order for evaluation: as the rows stand, or from long to short, or by prompt.
        span: asked at each start of an iteration for the first micro-step to yield and the one to stop before; this is
            how training goes on in the middle of an epoch. None: all of them.
        with_responses: whether groups of responses go with the pairs (`MicroBatch.response_steps`).
        name: what an error calls a pair, by its row; None for its number.

    Raises:
        ValueError: if there are no pairs, if both or none of num_pairs and num_tokens are set, if a pair alone is over
            the budget, or for an unknown order.
    """

    def __init__(
        self,
        lengths: Rows,
        prompt_index: Rows | None = None,
        *,
        num_pairs: int | None = None,
        num_tokens: int | None = None,
        order: Order = "random",
        token_cost: LayoutName = "padded",
        sequence_index: Rows | None = None,
        prompts: tuple[Rows, Rows] | None = None,
        steady_tokens: int | None = None,
        strength: NDArray[np.float64] | None = None,
        text_lengths: Rows | None = None,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        span: Span | None = None,
        with_responses: bool = False,
        name: Callable[[int], str] | None = None,
    ) -> None:
        given = [value for value in (num_pairs, num_tokens) if value is not None]
        if len(given) != 1 or given[0] < 1:
            raise ValueError(
                f"set num_pairs or num_tokens, to 1 at least; got num_pairs={num_pairs}, num_tokens={num_tokens}"
            )
        check_words(get_args(Order), order=order)
        if order in CURRICULA and (strength is None or np.isnan(strength).all()):
            raise ValueError(f"order={order!r} needs preference strengths and no pair has one; annotate the data first")
        if len(lengths) == 0:
            raise ValueError("there are no pairs to make batches of")
        self.lengths = lengths
        self.prompt_index = np.arange(len(lengths)) if prompt_index is None else prompt_index
        self.num_pairs = num_pairs
        self.num_tokens = num_tokens
        self.order = order
        self.token_cost: LayoutName = token_cost
        self.sequence_index = (
            np.arange(lengths.size).reshape(lengths.shape) if sequence_index is None else sequence_index
        )
        self.strength = np.broadcast_to(np.nan, len(lengths)) if strength is None else strength
        self.text_lengths: Rows = np.ones(len(lengths), np.int64) if text_lengths is None else text_lengths
        self.rank = rank
        self.world_size = world_size
        self.accumulate = accumulate
        self.seed = seed
        self.shuffle = shuffle
        self.span = span
        self.with_responses = with_responses
        self.epoch = 0
        self._parts = grid_parts(lengths, self.sequence_index, prompts, steady_tokens)
        # What orders by length sort by, whatever the layout: the pairs that meet in a batch do not depend on it.
        self._longest: Rows = lengths.max(axis=1)
        # The grid tokens that a pair takes alone.
        num_sequences: Rows = (lengths > 0).sum(axis=1)
        self._tokens: Rows = num_sequences * self._longest if token_cost == "padded" else self._parts[0].sum(axis=1)
        self._check_budget(name or (lambda row: f"pair {row}"))

    @cached_property
    def _composed(self) -> list[Rows] | None:
        """The batches of every epoch, where a budget fixes them; made when they are first asked for."""
        return self._compose(self._generator()) if self.num_tokens else None

    @property
    def sampler(self) -> PairBatchSampler:
        """Itself: trainers look for `batch_sampler.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Count the micro-batches of a whole epoch, the same on every rank and in every epoch."""
        num_batches = len(self._composed) if self._composed else -(-len(self.lengths) // self._pairs_a_batch)
        return -(-num_batches // self.world_size)

    def __iter__(self) -> Iterator[MicroBatch]:
        epoch = self.epoch if self.shuffle else 0
        plan = self.plan(epoch)
        first, stop = self.span() if self.span else (0, len(plan))
        stop = min(stop, len(plan))
        num_pairs, num_text = 0, 0.0  # of the optimizer step; the text is a mean over its pairs
        for place in range(first, stop):
            step = step_around(place, self.accumulate, stop)
            begins = place in (step.start, first)
            if begins:
                rows = np.concatenate([batch for batches in plan[step.start : step.stop] for batch in batches])
                num_pairs, num_text = len(rows), float(self.text_lengths[rows].mean())
            of_run = tuple(epoch * len(plan) + one for one in step) if begins and self.with_responses else ()
            yield self._micro_batch(plan[place], num_pairs, num_text, of_run)

    def plan(self, epoch: int) -> list[list[Rows]]:
        """Return the rows that every rank reads in every micro-step of an epoch; a batch without rows stands for a
        filler.

        Args:
            epoch: counts from 0.

        Returns:
            One list of `world_size` batches for each micro-step.
        """
        generator = self._generator(epoch)
        batches = self._composed or self._compose(generator)
        if self.shuffle and self.order not in CURRICULA and (self.order != "random" or self._composed):
            batches = self._shuffled(batches, generator)
        steps = [batches[start : start + self.world_size] for start in range(0, len(batches), self.world_size)]
        return [*steps[:-1], spread(steps[-1], self.world_size)]

    def _micro_batch(
        self, step: list[Rows], num_pairs: int, num_text: float, response_steps: tuple[int, ...]
    ) -> MicroBatch:
        """Return this rank's part of a micro-step.

        Args:
            step: the rows of every rank.
            num_pairs: of the whole optimizer step.
            num_text: the mean of its `text_lengths`.
            response_steps: of the micro-batch.
        """
        rows = step[self.rank]
        if len(rows) == 0:
            return MicroBatch((int(step[0][0]),), (False,), 0.0, response_steps=response_steps)
        scale = scale_of(len(rows), num_pairs, self.world_size, self.accumulate)
        text_share = float(self.text_lengths[rows].mean() / num_text) if num_text else 1.0
        return MicroBatch(tuple(rows.tolist()), (True,) * len(rows), scale, text_share, response_steps)

    def _compose(self, generator: np.random.Generator) -> list[Rows]:
        """Return all pairs in batches, in an order that may still be shuffled; what fills no micro-step comes last."""
        num_rows = len(self.lengths)
        rows = generator.permutation(num_rows) if self.shuffle else np.arange(num_rows)
        if self.order == "prompt":
            return self._cut(by_prompt(rows, self.prompt_index, self.sequence_index, generator))
        if self.order == "random":
            return self._cut(rows)
        if self.order in CURRICULA:
            return self._cut(by_strength(rows, self.strength, self.order))
        if not self.shuffle:
            return self._cut(by_length(rows, self._longest))
        # Left over are pairs at random, not the shortest of all.
        step = self._pairs_a_batch * self.world_size
        whole = num_rows - num_rows % step
        windows = np.split(rows, [*range(WINDOW * step, whole, WINDOW * step), whole])
        return [batch for window in windows for batch in self._cut(by_length(window, self._longest))]

    def _shuffled(self, batches: list[Rows], generator: np.random.Generator) -> list[Rows]:
        """Return batches in random order, those of a micro-step together so that no rank waits for a longer one.

        A prompt's batches are shuffled one by one: they should not all meet in one step. Batches smaller than the rest
        stay last.
        """
        together = 1 if self.order == "prompt" else self.world_size
        num_full = len(batches) if self._composed else len(self.lengths) // self._pairs_a_batch
        num_whole = num_full // together
        pieces = [batches[start : start + together] for start in range(0, num_whole * together, together)]
        shuffled = [batch for i in generator.permutation(num_whole) for batch in pieces[i]]
        return shuffled + batches[num_whole * together :]

    def _cut(self, rows: Rows) -> list[Rows]:
        if self.num_tokens is None:
            return cut_by_pairs(rows, self._pairs_a_batch)
        return cut_by_tokens(rows, self.num_tokens, self.token_cost, *self._parts)

    def _check_budget(self, name: Callable[[int], str]) -> None:
        row = int(self._tokens.argmax())
        if self.num_tokens is not None and (tokens := int(self._tokens[row])) > self.num_tokens:
            raise ValueError(
                f"{name(row)} has {' and '.join(map(str, self.lengths[row]))} tokens, {tokens} on a "
                f"{self.token_cost} grid: over the budget of {self.num_tokens} tokens a batch; raise it to {tokens} at "
                "least, or allow conversations fewer tokens"
            )

    @property
    def _pairs_a_batch(self) -> int:
        """`num_pairs`, or about as many as the budget allows."""
        return self.num_pairs or max(1, int((self.num_tokens or 0) / self._tokens.mean()))

    def _generator(self, *epoch: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, *epoch]))
