"""Annotation: M voters score every pair of a data set, and their votes become its strengths.

Distinct conversations are scored, each once, in shards that are written as they are done: `OUT.parts/VOTER/SHARD.npy`.
A killed annotation goes on where it was, and any number of processes share the shards. What comes out is assembled in
the end and renamed into place, so there is never half a file. This file knows voters, pairs and files; no
configuration. How the annotated rows are written is `files`'s.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from lightning_rm.annotation.voters import Voter, check_voters
from lightning_rm.batch import LayoutName, Sample
from lightning_rm.data.batches.choice import LayoutSetting, choose_layout
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.batches.orders import by_length, cut_by_tokens
from lightning_rm.data.batches.repeats import sequence_index
from lightning_rm.data.rows import PairRow, Source
from lightning_rm.data.store.cache import draft_of, fingerprint
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.strength import Strength

Progress = Callable[[str, int, int], None]
"""Told the voter, how many of its conversations are scored, and how many there are."""

Rewards = NDArray[np.float32]


@dataclass(frozen=True)
class Votes:
    """What M voters said of the N pairs of a data set.

    Args:
        pairs: the tokenised pairs.
        voters: the names of the M voters; members of one backbone count one by one.
        chosen: (N, M) rewards of the chosen responses; NaN where a voter has no say.
        rejected: (N, M) the same of the rejected ones.
    """

    pairs: PairDataset
    voters: tuple[str, ...]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]

    @property
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
    layout: LayoutSetting = "padded",
    batch_tokens: int = 16384,
    shard_size: int = 2000,
    progress: Progress | None = None,
) -> Votes:
    """Have every voter score every pair of a source that it has a say on.

    Args:
        source: pair rows, good and bad.
        voters: models that belong together (`voters.check_voters`).
        parts: a folder for the shards that are done; whatever is in it for the same voters and data is not done again.
        policy: what to do with rows that are bad or long.
        fabric: device and processes; None for this process and the CPU. Every process calls this alike.
        cache_dir: where tokenised pairs are kept.
        layout: how conversations are laid out, or `auto`; rewards are the same.
        batch_tokens: the most grid tokens of a forward, before a common beginning is shared; a longer conversation goes
            alone.
        shard_size: conversations of a shard, the most that a killed process does again.
        progress: called after every batch.

    Returns:
        The votes, in the order of the pairs.

    Raises:
        ValueError: if voters do not belong together, a pair is longer than they read, or a reward is not finite.
    """
    fabric = fabric or L.Fabric(accelerator="cpu", devices=1)
    check_voters(voters)
    tokenizer = voters[0].tokenizer()
    pairs = prepare_pairs(source, tokenizer, policy, cache_dir, "annotated")
    index = sequence_index(pairs)
    # Conversations are numbered from 0: `first` says at which pair and side each of them stands.
    first = np.unique(index, return_index=True)[1]
    lengths = pairs.lengths.ravel()[first]

    def sample_of(number: int) -> Sample:
        pair, side = divmod(int(first[number]), 2)
        return Sample([pairs.sample(pair).sequences[side]])

    settings = fingerprint(
        pairs=pairs.path.stem,
        shard_size=shard_size,
        layout=layout,
        batch_tokens=batch_tokens,
        precision=fabric.strategy.precision.precision,
    )
    has_say = _has_say(source, pairs, voters)
    needed_by = [np.unique(index[mask]) for mask in has_say]
    folders = [_folder(parts, settings, voter) for voter in voters]
    laid: LayoutName | None = None
    for voter, following, needed, folder in zip(voters, [*voters[1:], None], needed_by, folders, strict=True):
        shards = [needed[start : start + shard_size] for start in range(0, len(needed), shard_size)]
        # By their numbers, not by what is missing: that differs between processes that look at different times.
        numbers = range(fabric.global_rank, len(shards), fabric.world_size)
        mine = [number for number in numbers if not (folder / f"{number:06d}.npy").exists()]
        done = sum(len(shards[number]) for number in range(len(shards)) if number not in mine)
        if not mine:
            continue
        model = voter.load(tokenizer)
        fabric.to_device(model)
        _check_lengths(pairs, lengths, model)
        if following is not None:
            following.read_ahead()
        laid = laid or choose_layout(layout, model.fast_layouts, pairs).layout
        for number in mine:
            scored: list[tuple[NDArray[np.int64], Rewards]] = []
            for rows in _batches(shards[number], lengths, batch_tokens, laid):
                with fabric.autocast():
                    scored.append((rows, _score(model, [sample_of(row) for row in rows.tolist()], laid)))
                done += len(rows)
                if progress is not None:
                    progress(voter.name, done, len(needed))
            _write_part(folder / f"{number:06d}.npy", scored, voter)
        del model
    fabric.barrier()
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for voter, needed, folder, mask in zip(voters, needed_by, folders, has_say, strict=True):
        rewards = _read_parts(folder) if len(needed) else _no_rewards(voter.load(tokenizer))
        members = rewards.shape[1]
        names += [voter.name] if members == 1 else [f"{voter.name}#{member}" for member in range(members)]
        columns.append(_by_pair(rewards, needed, index, mask))
    table = np.concatenate(columns, axis=2)
    return Votes(pairs, tuple(names), table[:, 0], table[:, 1])


def remove_parts(parts: Path) -> None:
    """Remove the shards of an annotation that is done."""
    shutil.rmtree(parts, ignore_errors=True)


def _folder(parts: Path, settings: str, voter: Voter) -> Path:
    """Where the shards of a voter go: named by all that its rewards depend on."""
    fold = "" if voter.fold is None else f"-{voter.fold.fold % voter.fold.num_folds}of{voter.fold.num_folds}"
    return parts / f"{settings[:16]}-{voter.digest}{fold}"


def _has_say(source: Source, pairs: PairDataset, voters: Sequence[Voter]) -> list[NDArray[np.bool_]]:
    """For each voter (N,) whether it has a say on each pair."""
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


def _check_lengths(pairs: PairDataset, lengths: NDArray[np.int64], model: RewardModel) -> None:
    limit, longest = model.max_tokens, int(lengths.max())
    if limit is not None and longest > limit:
        raise ValueError(
            f"{pairs.name}: a conversation has {longest} tokens and the voters read {limit}; set max_tokens={limit}"
        )


def _batches(
    shard: NDArray[np.int64], lengths: NDArray[np.int64], batch_tokens: int, layout: LayoutName
) -> list[NDArray[np.int64]]:
    """The conversations of a shard, as many at a time as the budget allows.

    On a padded grid they go from long to short. On the others they stand as they come, those of a pair side by side:
    there is no padding to save, and a beginning to share.
    """
    rows = by_length(shard, lengths) if layout == "padded" else shard
    return cut_by_tokens(rows, batch_tokens, layout, lengths[:, None], np.arange(len(lengths))[:, None])


@torch.inference_mode()
def _score(model: RewardModel, samples: Sequence[Sample], layout: LayoutName) -> Rewards:
    """(n, members) rewards of n conversations."""
    device = next(model.parameters()).device
    tokens = LAYOUTS[layout](samples, model.read_at, model.pad_id).to(device)
    reward = model(tokens).reward[0]
    return reward.reshape(-1, len(samples)).T.cpu().numpy()


def _write_part(path: Path, scored: Sequence[tuple[NDArray[np.int64], Rewards]], voter: Voter) -> None:
    """Write one shard's rewards, (n, members) by the numbers of its conversations, in one step."""
    numbers, values = (np.concatenate(part) for part in zip(*scored, strict=True))
    if not np.isfinite(values).all():
        raise ValueError(f"voter {voter.name} gives rewards that are not finite; has its training diverged?")
    with draft_of(path) as draft, draft.open("wb") as file:
        np.save(file, values[np.argsort(numbers)], allow_pickle=False)


def _read_parts(folder: Path) -> Rewards:
    """(n, members): the rewards of all shards of a voter."""
    return np.concatenate([np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))])


def _no_rewards(model: RewardModel) -> Rewards:
    """(0, members): what a voter says whose fold holds no prompt of the data."""
    return np.empty((0, model.num_members if isinstance(model, MemberRewardModel) else 1), np.float32)


def _by_pair(
    rewards: Rewards, needed: NDArray[np.int64], index: NDArray[np.int64], has_say: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(N, 2, members) rewards of the pairs' responses, NaN where a voter has no say.

    Args:
        rewards: (n, members) of the conversations that the voter scored.
        needed: (n,) their numbers, in order.
        index: (N, 2) the number of each response's conversation.
        has_say: (N,) on which pairs.
    """
    by_number = np.full((int(index.max()) + 1, rewards.shape[1]), np.nan)
    by_number[needed] = rewards
    return np.where(has_say[:, None, None], by_number[index], np.nan)
