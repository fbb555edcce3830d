"""`score_shards`: more conversations than memory holds, a shard at a time, over devices and over interruptions.

Shards come as a stream. Each process takes its share of them by number, leaves out those whose part is written, and
asks a shard for its token sequences only when it scores it. It knows sequences; no text and no file but its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.engine import BATCH_TOKENS, score_sequences
from lightning_rm.scoring.parts import Part, Parts, Refusal


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
    sequences: Callable[[], Sequence[Sequence[int] | Refusal]]
    name: Callable[[int], str]


def score_shards(
    load: Callable[[], AnyRewardModel],
    shards: Iterable[Shard],
    parts: Parts,
    *,
    fabric: L.Fabric,
    layout: LayoutSetting = "auto",
    batch_tokens: int = BATCH_TOKENS,
    each_member: bool = False,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Score the shards that no process has scored yet, and write each one's part.

    Args:
        load: gives the model, on its device; called when the first shard is scored, not at all if none is left.
        shards: the stream. Every process reads the same one.
        parts: where the parts go; named by all that rewards depend on, layout and budget among it.
        fabric: device, precision and processes; every process calls this alike.
        layout: how conversations are laid out; rewards are the same.
        batch_tokens: the most grid tokens of a forward; a longer conversation goes alone.
        each_member: an ensemble gives the rewards of each of its members in place of their aggregate.
        progress: told of conversations that are done, as many as are new since it was last told.

    Raises:
        ValueError: as `score_sequences` does. Parts that are written stay.
    """
    model: AnyRewardModel | None = None
    # By their numbers, not by what is missing: that differs between processes that look at different times.
    for shard in shards:
        if shard.number % fabric.world_size != fabric.global_rank or parts.has(shard.number):
            if progress is not None:
                progress(shard.size)
            continue
        model = model or load()
        found = shard.sequences()
        refusals = {place: ids for place, ids in enumerate(found) if isinstance(ids, Refusal)}
        readable = [place for place in range(len(found)) if place not in refusals]
        with fabric.autocast():
            scored = score_sequences(
                model,
                [ids for ids in found if not isinstance(ids, Refusal)],
                layout=layout,
                batch_tokens=batch_tokens,
                each_member=each_member,
                name=lambda place, shard=shard, readable=readable: shard.name(readable[place]),
                progress=progress,
            )
        rewards = np.full((len(found), scored.shape[1]), np.nan, scored.dtype)
        rewards[readable] = scored
        if refusals and progress is not None:
            progress(len(refusals))
        parts.write(shard.number, Part(rewards, refusals))
    fabric.barrier()
