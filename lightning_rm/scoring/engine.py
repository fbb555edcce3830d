"""`score_sequences`: token sequences in, rewards out. The only loop over batches without a gradient.

Commands, callbacks, notebooks and the server all come here, so that a reward does not depend on who asks for it. It
knows models and layouts; no text, no file and no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_rm.counts import check_counts, given, number_of
from lightning_rm.data.batches.choice import LayoutSetting, choose_layout
from lightning_rm.data.batches.layouts import layout_of
from lightning_rm.models.backbone.contexts import evaluating
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.batches import Ids, batches_of
from lightning_rm.tokens import Sample, TokenBatch

Rewards = NDArray[np.floating[Any]]
T = TypeVar("T")

BATCH_TOKENS = 16384
"""Grid tokens of a forward on a GPU, where the caller names no other budget."""

CPU_BATCH_TOKENS = 2048
"""The same on a CPU: the activations of a larger forward no longer fit the caches, and it is up to a fifth slower."""


def score_sequences(
    model: AnyRewardModel,
    sequences: Sequence[Sequence[int]],
    *,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    each_member: bool = False,
    name: Callable[[int], str] = "sequence {}".format,
    progress: Callable[[int], None] | None = None,
) -> Rewards:
    """Score token sequences, each distinct one once and, where the layout shares them, common beginnings once.

    Args:
        model: put into evaluation mode for the call and back.
        sequences: n lists of token ids, each a whole templated conversation.
        layout: how they are laid on the grid; rewards are the same. `auto` takes what the model honours, for decoders
            `shared_prefix`.
        batch_tokens: the most grid tokens of a forward; a longer sequence goes alone. None for what suits the device.
        batch_size: the most distinct sequences of a forward too.
        each_member: an ensemble gives the rewards of each of its members in place of their aggregate.
        name: what errors call a sequence, by its place.
        progress: called after every batch with the number of sequences in it.

    Returns:
        (n, M) rewards in the order given, in the model's `reward_dtype`: M is 1 for a model that answers as one, else
        the number of its members.

    Raises:
        ValueError: if a sequence is empty or longer than the model reads, a reward is not finite, or the model's head
            was never trained.
    """
    if model.untrained_head is not None:
        raise ValueError(
            f"{model.untrained_head} has no reward head, and the random one in its place has not been trained: its "
            "rewards mean nothing; train it first, or name a reward model"
        )
    check_lengths(model, sequences, name)
    places: dict[Ids, list[int]] = {}
    for place, sequence in enumerate(sequences):
        places.setdefault(tuple(sequence), []).append(place)
    distinct = list(places)
    num_rewards = model.num_members if each_member else model.num_rewards
    rewards = torch.empty(len(sequences), num_rewards, dtype=model.reward_dtype).numpy()

    def read(tokens: TokenBatch) -> Tensor:
        return model.votes(tokens) if each_member else model(tokens).reward

    for batch, reward in forwards(
        model, distinct, read, layout=layout, batch_tokens=batch_tokens, batch_size=batch_size
    ):
        values = reward[0].reshape(-1, len(batch)).T.cpu().numpy()
        num_scored = 0
        for number, value in zip(batch, values, strict=True):
            rewards[places[distinct[number]]] = value
            num_scored += len(places[distinct[number]])
        if progress is not None:
            progress(num_scored)
    check_finite(rewards, name)
    return rewards


@torch.inference_mode()
def forwards(
    model: AnyRewardModel,
    sequences: Sequence[Ids],
    read: Callable[[TokenBatch], T],
    *,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    batch_size: int | None = None,
) -> Iterator[tuple[list[int], T]]:
    """Read token sequences batch by batch: the loop that scoring and features share.

    Args:
        model: put into evaluation mode as long as batches are asked for, and back.
        sequences: token ids.
        read: what is wanted of a token batch: `model` itself, or what one of its methods makes of it.
        layout: as in `score_sequences`.
        batch_tokens: as there.
        batch_size: as there.

    Yields:
        The places of a batch's sequences, and what was read of it, one response a sequence.
    """
    check_counts(1, **given(batch_size=batch_size))
    laid = choose_layout(layout, model.fast_layouts).layout
    arrange = layout_of(laid, model.steady_tokens)
    with evaluating(model):
        for batch in batches_of(sequences, laid, batch_budget(model, batch_tokens), batch_size, model.steady_tokens):
            samples = [Sample([sequences[place]]) for place in batch]
            yield batch, read(arrange(samples, model.read_at, model.pad_id).to(model.device))


def batch_budget(model: AnyRewardModel, batch_tokens: int | None) -> int:
    """Return the grid tokens of a forward: those that are asked for, or what suits the model's device."""
    if batch_tokens is not None:
        check_counts(1, batch_tokens=batch_tokens)
        return batch_tokens
    return CPU_BATCH_TOKENS if model.device.type == "cpu" else BATCH_TOKENS


def check_lengths(model: AnyRewardModel, sequences: Sequence[Sequence[int]], name: Callable[[int], str]) -> None:
    """Raise ValueError for the first sequence that is empty or longer than the model reads."""
    for place, sequence in enumerate(sequences):
        if not sequence:
            raise ValueError(f"{name(place)} has no tokens; there is nothing to score")
        if model.max_tokens is not None and len(sequence) > model.max_tokens:
            raise ValueError(
                f"{name(place)} has {len(sequence)} tokens and the model reads {model.max_tokens}; cut its prompt"
            )


def check_finite(rewards: Rewards, name: Callable[[int], str]) -> None:
    """Raise ValueError for the first sequence with a reward that is not finite."""
    bad = np.flatnonzero(~np.isfinite(rewards).all(axis=1))
    if len(bad):
        first, others = name(int(bad[0])), number_of(len(bad) - 1, "other")
        raise ValueError(
            f"{first} has a reward that is not finite, and so have {others} of {len(rewards):,}: has the model's "
            "training diverged?"
        )
