"""Annotation: M voters score every pair of a data set, and their votes become its strengths.

Distinct conversations are scored, each once, by `scoring.shards`: a killed annotation goes on where it was, and any
number of processes share the shards. What comes out is assembled in the end and renamed into place, so there is never
half a file. This file knows voters and pairs; no configuration. How the annotated rows are written is `files`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import lightning as L
import numpy as np
from numpy.typing import NDArray

from lightning_rm.annotation.conversations import Conversations
from lightning_rm.annotation.voters import Voter, check_voters
from lightning_rm.counts import check_counts
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.rows import PairRow, Source
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.digests import check_unchanged, fingerprint
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.parts import Parts, Rewards, check_parts
from lightning_rm.scoring.shards import Engine, Shard, score_shards
from lightning_rm.strength import Strength

Progress = Callable[[str, int, int], None]
"""Told the voter, how many of its conversations are scored, and how many there are."""

NO_PAIRS = (
    "voters judge pairs, and these rows are scored responses, whose differences of scores are strengths already; "
    "annotate rows of chosen and rejected"
)
"""Said of rows that nobody can vote on."""


@dataclass(frozen=True)
class Votes:
    """What M voters said of the N pairs of a data set.

    Args:
        pairs: the tokenised pairs.
        voters: the names of the M voters; members of one backbone count one by one.
        chosen: (N, M) rewards of the chosen responses; NaN where a voter does not vote.
        rejected: (N, M) the same of the rejected ones.
    """

    pairs: PairDataset
    voters: tuple[str, ...]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]

    @cached_property
    def votes(self) -> NDArray[np.float64]:
        """(N, M) margins: `chosen - rejected`."""
        return self.chosen - self.rejected

    @cached_property
    def strength(self) -> Strength:
        """The strengths of the N pairs."""
        return Strength.of_votes(self.votes)


def collect_votes(
    source: Source,
    voters: Sequence[Voter],
    parts: Path,
    policy: TokenizePolicy,
    *,
    fabric: L.Fabric | None = None,
    cache_dir: Path | str | None = None,
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    shard_size: int = 2000,
    engine: Engine = score_shards,
    progress: Progress | None = None,
    accept: Callable[[PairDataset], None] | None = None,
) -> Votes:
    """Have every voter score each pair of a source that it may vote on.

    Args:
        source: pair rows, good and bad.
        voters: models that belong together (`voters.check_voters`).
        parts: a folder for the shards that are done; whatever is in it for the same voters and data is not done again.
        policy: what to do with rows that are bad or long.
        fabric: device and processes; None for this process and the CPU. Every process calls this alike.
        cache_dir: where tokenised pairs are kept.
        layout: how conversations are laid out, or `auto`; rewards are the same.
        batch_tokens: the most grid tokens of a forward; a longer conversation goes alone. None for what suits the
            device.
        shard_size: conversations of a shard, the most that a killed process does again.
        engine: what scores the shards: this process and Fabric's, or `on_ray.RayWorkers`; the votes are the same.
        progress: called after every batch, or every shard on Ray.
        accept: called with the pairs before the first is scored; an error that it raises refuses them.

    Returns:
        The votes, in the order of the pairs.

    Raises:
        ValueError: if voters do not belong together, rows are scored responses and not pairs, a pair is longer than
            they read, a reward is not finite, or the data has changed meanwhile.

    Warns:
        RowsLeftOut: if not every row is used as it stands.
    """
    fabric = fabric or L.Fabric(accelerator="cpu", devices=1)
    check_counts(1, shard_size=shard_size)
    check_voters(voters)
    before = source.fingerprint()
    tokenizer = voters[0].tokenizer()
    pairs = prepare_pairs(source, tokenizer, policy, cache_dir, "annotated")
    if not np.isnan(pairs.scores).all():
        raise ValueError(NO_PAIRS)
    pairs.report.warn()
    if accept is not None:
        accept(pairs)
    conversations = Conversations(pairs)

    def load(voter: Voter, following: Voter | None) -> AnyRewardModel:
        model = voter.load(tokenizer)
        conversations.check_readable(model)
        fabric.to_device(model)
        if following is not None:
            following.read_ahead()
        return model

    settings = fingerprint(
        pairs=pairs.path.stem,
        shard_size=shard_size,
        layout=layout,
        batch_tokens=batch_tokens,
        precision=fabric.strategy.precision.precision,
    )
    has_say = _has_say(source, pairs, voters)
    needed_by = [np.unique(conversations.index[mask]) for mask in has_say]
    check_parts(parts)
    folders = [Parts(parts / f"{settings[:16]}-{voter.digest}{_fold(voter)}") for voter in voters]
    for voter, following, needed, folder in zip(voters, [*voters[1:], None], needed_by, folders, strict=True):
        engine(
            partial(load, voter, following),
            conversations.shards(needed, shard_size, voter.name),
            folder,
            fabric=fabric,
            layout=layout,
            batch_tokens=batch_tokens,
            progress=None if progress is None else _counting(progress, voter.name, len(needed)),
        )
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for voter, needed, folder, mask in zip(voters, needed_by, folders, has_say, strict=True):
        read = [folder.read(number).rewards for number in range(-(-len(needed) // shard_size))]
        rewards = np.concatenate(read) if read else np.empty((0, voter.load(tokenizer).num_rewards), np.float32)
        members = rewards.shape[1]
        names += [voter.name] if members == 1 else [f"{voter.name}#{member}" for member in range(members)]
        columns.append(_by_pair(rewards, needed, conversations.index, mask))
    check_unchanged("the data", source.fingerprint(), before)
    fabric.barrier()  # all have read the parts: whoever goes on first may remove them
    table = np.concatenate(columns, axis=2)
    return Votes(pairs, tuple(names), table[:, 0], table[:, 1])


def kept_rows(source: Source, pairs: PairDataset) -> Iterator[tuple[int, PairRow]]:
    """Yield the rows that tokenised pairs were made of, each with its pair's place."""
    place_of = {int(row): place for place, row in enumerate(pairs.source_row)}
    for number, row in enumerate(source):
        if number in place_of and isinstance(row, PairRow):
            yield place_of[number], row


def said(values: NDArray[np.float64]) -> list[float]:
    """Return the numbers of the voters that have a say: of (M,) those that are not NaN."""
    return values[~np.isnan(values)].tolist()


def _counting(progress: Progress, name: str, total: int) -> Callable[[Shard, int], None]:
    """Return a function that is called with the number of new ones, and calls `progress` with the number done."""
    done = 0

    def tell(_: Shard, num_new: int) -> None:
        nonlocal done
        done += num_new
        progress(name, done, total)

    return tell


def _fold(voter: Voter) -> str:
    """Return what names the fold that a voter left out."""
    return "" if voter.fold is None else f"-{voter.fold.fold % voter.fold.num_folds}of{voter.fold.num_folds}"


def _has_say(source: Source, pairs: PairDataset, voters: Sequence[Voter]) -> list[NDArray[np.bool_]]:
    """Return for each voter (N,), whether it has a say on each pair."""
    if all(voter.fold is None for voter in voters):
        return [np.ones(len(pairs), bool)] * len(voters)
    prompt_ids = [row.prompt_id if isinstance(row, PairRow) else "" for row in source]
    names = [prompt_ids[row] for row in pairs.source_row.tolist()]
    masks = [np.array([voter.fold is None or voter.fold.holds(name) for name in names]) for voter in voters]
    if not (covered := np.any(masks, axis=0)).all():
        raise ValueError(
            f"{int((~covered).sum()):,} of {len(pairs):,} pairs belong to a fold that no voter left out, so nobody may "
            "vote on them; train at least one voter a fold (seed=range(0,NUM_FOLDS) covers them all)"
        )
    return masks


def _by_pair(
    rewards: Rewards, needed: NDArray[np.int64], index: NDArray[np.int64], has_say: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return (N, 2, members), the rewards of the pairs' responses, NaN where a voter has no say.

    Args:
        rewards: (n, members) of the conversations that the voter scored.
        needed: (n,) their numbers, in order.
        index: (N, 2) the number of each response's conversation.
        has_say: (N,) on which pairs.
    """
    by_number = np.full((int(index.max()) + 1, rewards.shape[1]), np.nan)
    by_number[needed] = rewards
    return np.where(has_say[:, None, None], by_number[index], np.nan)
