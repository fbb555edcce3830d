"""Rewards of items: conversations become token ids by the rules of `data`, and go in chunks through the scoring engine.

What is too long is counted, and cut as training would cut it; all responses of an item keep the same cut prompt.
An item that cannot be made to fit is left out and counted, not scored as wrong. Models are known by the engine alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.rows import GroupRow
from lightning_rm.data.tokenize.draft import Draft
from lightning_rm.data.tokenize.fitting import fit
from lightning_rm.data.tokenize.policy import (
    ARGUMENT_UNREAD,
    PROMPT_CUT,
    RESPONSE_CUT,
    TEXT_LEFT_OUT,
    Overlong,
    TokenizePolicy,
)
from lightning_rm.evaluation.items import Floats, Item, Items
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.parts import Part, Parts

CHUNK = 500
"""Items whose token ids are in memory at a time."""

NO_LIMIT = 1_000_000_000


@dataclass(frozen=True)
class Reading:
    """How a model reads items.

    Args:
        max_tokens: of a conversation; None for the model's own limit.
        overlong: what becomes of a longer one: `truncate_response` cuts the prompt at a turn and then the response from
            the right, `truncate_prompt` the prompt alone, `drop` leaves the item out, `error` ends the evaluation.
        layout: how conversations are laid out; rewards are the same.
        batch_tokens: grid tokens of a forward; None for what suits the device.
    """

    max_tokens: int | None = None
    overlong: Overlong = "truncate_response"
    layout: LayoutSetting = "auto"
    batch_tokens: int | None = None


@dataclass(frozen=True)
class Scored:
    """What a model says of N items of at most K responses.

    Args:
        rewards: (N, K), one per response (of members their mean); NaN for missing responses and items left out.
        votes: (N, K, M) of each member; None for a single model.
        left_out: (N,) items that the model cannot read whole, and those that belong to them.
        num_cut: conversations whose prompt or response was cut.
        num_tokens: of the longest conversation.
        remarks: what the chat template does not write of an item, or does not read of its arguments -> of how many.
    """

    rewards: Floats
    votes: Floats | None
    left_out: NDArray[np.bool_]
    num_cut: int
    num_tokens: int
    remarks: Mapping[str, int] = field(default_factory=dict[str, int])


def score_items(
    model: AnyRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Items,
    reading: Reading | None = None,
    progress: Callable[[int], None] | None = None,
    parts: Parts | None = None,
) -> Scored:
    """Return the rewards of all responses of items.

    Args:
        model: a plain model, an ensemble or members.
        tokenizer: the model's own.
        items: N of them.
        reading: how to read them.
        progress: called with the number of responses that were scored since its last call.
        parts: where the rewards of each chunk are written as they come, and read if they are there.

    Raises:
        ValueError: if the chat template refuses an item, a reward is not finite, or an item is too long and that is to
            be an error; the message names the row.
    """
    reading = reading or Reading()
    limit = model.max_tokens if reading.max_tokens is None else reading.max_tokens
    policy = TokenizePolicy(limit or NO_LIMIT, reading.overlong)
    votes = np.full((*items.gold.shape, model.num_members), np.nan)
    unread = np.zeros(len(items), bool)
    num_cut = longest = 0
    remarks: Counter[str] = Counter()
    for start in range(0, len(items), CHUNK):
        numbers = range(start, min(start + CHUNK, len(items)))
        drafts = fit([(number, _group(items[number])) for number in numbers], tokenizer, policy)
        for draft in drafts:
            unread[draft.place] = not _fits(draft, items[draft.place], policy)
        kept = [draft for draft in drafts if not unread[draft.place]]
        longest = max(longest, *(draft.num_tokens for draft in kept), 0)
        remarks.update(what for draft in kept for what in (TEXT_LEFT_OUT, ARGUMENT_UNREAD) if what in draft.changes)
        num_cut += sum(len(draft.ids) for draft in kept if draft.changes.keys() & {PROMPT_CUT, RESPONSE_CUT})
        places = [(draft.place, place) for draft in kept for place in range(len(draft.ids))]

        def name(sequence: int, places: list[tuple[int, int]] = places) -> str:
            number, place = places[sequence]
            return f"response {place} of {items[number].origin or items[number].id}"

        if not places:
            continue
        number = start // CHUNK
        if parts is not None and parts.has(number):
            found = parts.read(number).rewards
            if progress is not None:
                progress(len(places))
        else:
            found = score_sequences(
                model,
                [ids for draft in kept for ids in draft.ids],
                layout=reading.layout,
                batch_tokens=reading.batch_tokens,
                each_member=True,
                name=name,
                progress=progress,
            )
            if parts is not None:
                parts.write(number, Part(found, {}))
        votes[tuple(np.array(places).T)] = found
    left_out = np.isin(items.cluster, items.cluster[unread])
    votes[left_out] = np.nan
    return Scored(as_one(model, votes), votes if model.num_members > 1 else None, left_out, num_cut, longest, remarks)


def as_one(model: AnyRewardModel, votes: Floats) -> Floats:
    """Return (...), rewards of a model as one, from (..., M) votes: an ensemble's own aggregate, the mean of
    members.
    """
    rows = torch.from_numpy(votes).movedim(-1, 0).flatten(1)
    return model.combine(rows).reshape(votes.shape[:-1]).numpy()


def _group(item: Item) -> GroupRow:
    return GroupRow(
        prompt=item.prompt,
        responses=item.responses,
        id=item.id,
        prompt_id=item.cluster,
        tools=item.tools,
        chat_template_kwargs=item.chat_template_kwargs,
    )


def _fits(draft: Draft[GroupRow], item: Item, policy: TokenizePolicy) -> bool:
    """Tell whether a model reads all of an item.

    Raises:
        ValueError: if the template refuses it, or it does not fit and that is an error.
    """
    origin = item.origin or item.id
    if draft.failure:
        raise ValueError(f"{origin}: the chat template refuses the conversation: {draft.failure}")
    fits = draft.num_tokens <= policy.max_tokens
    if not fits and policy.overlong == "error":
        raise ValueError(
            f"{origin} has a conversation of {draft.num_tokens:,} tokens, and the limit is {policy.max_tokens:,}; "
            "overlong=truncate_response cuts it, overlong=drop leaves it out"
        )
    return fits
