"""`score_shards`: more conversations than memory holds, a shard at a time, over devices and over interruptions.

Shards come as a stream. Each process takes its share of them by number, leaves out those whose part is written, and
asks a shard for its token sequences only when it scores it next. It knows sequences; no text and no file but its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import lightning as L
import numpy as np

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.parts import Part, Parts, Refusal

Found = Sequence[Sequence[int] | Refusal]


@dataclass(frozen=True)
class Shard:
    """Distinct conversations that are scored and written together.

    Args:
        number: counts from 0; the same conversations have the same number whenever the stream is read.
        size: how many conversations.
        sequences: gives their token ids, or why one has none.
        name: what errors call a conversation, by its place in the shard.
    """

    number: int
    size: int
    sequences: Callable[[], Found]
    name: Callable[[int], str]


Progress = Callable[[Shard, int], None]


class Engine(Protocol):
    """Scores shards: `score_shards` in this process and those that Fabric has launched beside it, or `RayWorkers`."""

    def __call__(
        self,
        load: Callable[[], AnyRewardModel],
        shards: Iterable[Shard],
        parts: Parts,
        *,
        fabric: L.Fabric,
        layout: LayoutSetting = "auto",
        batch_tokens: int | None = None,
        each_member: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Score the shards that are not done yet, and write each one's part."""
        ...


def score_shards(
    load: Callable[[], AnyRewardModel],
    shards: Iterable[Shard],
    parts: Parts,
    *,
    fabric: L.Fabric,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    each_member: bool = False,
    progress: Progress | None = None,
) -> None:
    """Score the shards that no process has scored yet, and write each one's part.

    Args:
        load: gives the model, on its device; called when the first shard is scored, not at all if none is left.
        shards: the stream. Every process reads the same one.
        parts: where the parts go; named by all that rewards depend on, layout and budget among it.
        fabric: device, precision and processes; every process calls this alike.
        layout: how conversations are laid out; rewards are the same.
        batch_tokens: the most grid tokens of a forward; a longer conversation goes alone. None for what suits the
            device.
        each_member: an ensemble gives the rewards of each of its members in place of their aggregate.
        progress: called with a shard and the number of its conversations that are newly done.

    Raises:
        ValueError: as `score_sequences` does. Parts that are written stay.
    """
    stream = iter(shards)

    def step() -> tuple[Shard, Found | None] | None:
        """Return the next shard, and its sequences unless another process scores it or it is done."""
        shard = next(stream, None)
        if shard is None:
            return None
        # Shared out by number, not by what is missing: that differs between processes that look at different times.
        mine = shard.number % fabric.world_size == fabric.global_rank and not parts.has(shard.number)
        return shard, shard.sequences() if mine else None

    model: AnyRewardModel | None = None
    # While a shard is scored, the next one is read and tokenised: an accelerator does not wait for either.
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(step)
        while (now := coming.result()) is not None:
            coming = ahead.submit(step)
            shard, found = now
            if found is None:
                if progress is not None:
                    progress(shard, shard.size)
                continue
            if model is None:
                model = load()
            with fabric.autocast():
                part = score_shard(model, shard, found, layout, batch_tokens, each_member, progress)
            parts.write(shard.number, part)
    fabric.barrier()


def score_shard(
    model: AnyRewardModel,
    shard: Shard,
    found: Found,
    layout: LayoutSetting,
    batch_tokens: int | None,
    each_member: bool,
    progress: Progress | None = None,
) -> Part:
    """Return what a model says of a shard's conversations.

    Args:
        model: on its device.
        shard: names them, and is what `progress` is told.
        found: their token ids, or why one has none.
        layout: as in `score_shards`.
        batch_tokens: as there.
        each_member: as there.
        progress: as there.
    """
    refusals = {place: ids for place, ids in enumerate(found) if isinstance(ids, Refusal)}
    readable = [place for place in range(len(found)) if place not in refusals]
    scored = score_sequences(
        model,
        [ids for ids in found if not isinstance(ids, Refusal)],
        layout=layout,
        batch_tokens=batch_tokens,
        each_member=each_member,
        name=lambda place: shard.name(readable[place]),
        progress=None if progress is None else partial(progress, shard),
    )
    rewards = np.full((len(found), scored.shape[1]), np.nan, scored.dtype)
    rewards[readable] = scored
    if refusals and progress is not None:
        progress(shard, len(refusals))
    return Part(rewards, refusals)
