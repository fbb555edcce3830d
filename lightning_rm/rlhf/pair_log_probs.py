"""Log-probabilities of the responses of pairs under a policy, kept on disk part by part while they are made.

It knows policies and pairs that they can read (`pair_reader`); no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from lightning_rm.data.rows import PairRow
from lightning_rm.rlhf.importance import Floats, LogProbs
from lightning_rm.rlhf.log_probs import response_log_probs
from lightning_rm.rlhf.pair_reader import PairReader, Said, Unreadable
from lightning_rm.scoring.parts import Part, Parts


def pair_log_probs(
    reader: PairReader,
    rows: Iterable[PairRow],
    parts: Parts,
    num_pairs: int,
    *,
    shard_pairs: int = 500,
    device: str | torch.device = "cpu",
    batch_tokens: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> LogProbs:
    """Return the log-probabilities of N pairs that a policy can read.

    Args:
        reader: the policy; it is loaded when the first part is made, not at all if none is left.
        rows: the pairs.
        parts: where each shard is kept once it is done; named by all that it depends on.
        num_pairs: N.
        shard_pairs: pairs of a shard, the most that a killed process does again.
        device: of the policy.
        batch_tokens: the most tokens of a forward.
        progress: called with the number of pairs done.

    Raises:
        ValueError: if a log-probability is not finite.
    """
    policy: Any = None
    num_shards = -(-num_pairs // shard_pairs)
    stream = iter(rows)
    for number in range(num_shards):
        shard = list(islice(stream, shard_pairs))
        if not parts.has(number):
            if policy is None:
                policy = reader.load().to(device)  # pyright: ignore[reportArgumentType]  # a device
            found = _of_shard(policy, reader, shard, batch_tokens)
            if (bad := np.flatnonzero(~np.isfinite(found).all(axis=1))).size:
                raise ValueError(
                    f"{shard[bad[0]].place}: the log-probability of a response under {reader.path} is not finite; has "
                    "the policy's training diverged?"
                )
            parts.write(number, Part(found, {}))
        if progress is not None:
            progress(min((number + 1) * shard_pairs, num_pairs))
    table = np.concatenate([parts.read(number).rewards for number in range(num_shards)], dtype=np.float64)
    return LogProbs(table[:, :2], table[:, 2:])


def _of_shard(policy: Any, reader: PairReader, rows: Sequence[PairRow], batch_tokens: int) -> Floats:
    """Return (n, 4): log-probabilities of chosen and rejected, and their numbers of tokens."""
    said = list(_flat(reader.read(rows)))
    values = response_log_probs(
        policy,
        [before for _, _, (before, _) in said],
        [response for _, _, (_, response) in said],
        temperature=reader.temperature,
        batch_tokens=batch_tokens,
    )
    found = np.zeros((len(rows), 4))
    for (place, side, (_, response)), value in zip(said, values, strict=True):
        found[place, side] += value
        found[place, 2 + side] += len(response)
    return found


def _flat(read: Sequence[tuple[list[Said], list[Said]] | Unreadable]) -> Iterator[tuple[int, int, Said]]:
    """Yield the place of a pair, 0 for its chosen response or 1 for its rejected one, and a turn of that."""
    for place, sides in enumerate(read):
        assert not isinstance(sides, Unreadable)  # these rows were read before
        for side, turns in enumerate(sides):
            for turn in turns:
                yield place, side, turn
