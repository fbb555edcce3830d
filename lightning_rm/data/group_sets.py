"""The sets of responses of a data module: tokenised when they are first asked for, streamed to training, evaluated.

It knows sets by name and the loaders they need; how the data module came by them and which trainer asks is not its
business.
"""

from __future__ import annotations

from collections.abc import Callable

from lightning_rm.counts import check_counts
from lightning_rm.data.batches.batching import Batching
from lightning_rm.data.batches.group_batches import GroupBatches, StreamedGroups
from lightning_rm.data.batches.group_stream import GroupStream
from lightning_rm.data.batches.layouts import layout_of
from lightning_rm.data.batches.loader import BatchLoader, GroupLoader
from lightning_rm.data.batches.sampler import PairBatchSampler
from lightning_rm.data.batches.share import Share
from lightning_rm.data.rows import GroupSource
from lightning_rm.data.sets import Sets
from lightning_rm.data.store.groups import GroupDataset


class GroupSets:
    """Sets of responses by name.

    Args:
        sets: their sources.
        batch_groups: groups of a batch on each device.
        prepare: makes tokenised groups of a source and its `name`: a partial of `prepare_groups`.

    Attributes:
        opened: name -> tokenised groups, of the sets that were asked for.

    Raises:
        ValueError: if `batch_groups` is below 1.
    """

    def __init__(self, sets: Sets[GroupSource], batch_groups: int, prepare: Callable[..., GroupDataset]) -> None:
        check_counts(1, batch_groups=batch_groups)
        self.sets = sets
        self.batch_groups = batch_groups
        self.prepare = prepare
        self.opened: dict[str, GroupDataset] = {}

    def open(self, name: str) -> GroupDataset:
        """Return a set's tokenised groups.

        Warns:
            RowsLeftOut: the first time, if not every row is used as it stands.
        """
        if name not in self.opened:
            self.opened[name] = self.prepare(self.sets.sources[name], name=name)
            self.opened[name].report.warn()
        return self.opened[name]

    def streamed(self, batching: Batching, share: Share) -> StreamedGroups | None:
        """Return what goes with the training pairs: a rank's groups of each micro-step; None where there is no such
        set.
        """
        if not self.sets.train:
            return None
        (name,) = self.sets.train
        groups = self.open(name)
        stream = GroupStream(len(groups), self.batch_groups, share.rank, share.world_size, batching.seed)
        return StreamedGroups(self._batches(groups, batching), stream)

    def evaluation_loader(self, name: str, batching: Batching, share: Share) -> GroupLoader:
        """Return a rank's groups of a set, each once over all ranks, as its rows stand."""
        groups = self.open(name)
        one_row_each = groups.num_responses[:, None]  # rows are read as they stand: no length and no prompt matters
        sampler = PairBatchSampler(
            one_row_each,
            groups.source_row,
            num_pairs=self.batch_groups,
            rank=share.rank,
            world_size=share.world_size,
            shuffle=False,
        )
        return BatchLoader(self._batches(groups, batching), sampler, batching.num_workers)

    def settings(self) -> dict[str, str | int]:
        """Return what the training groups of a micro-step depend on; nothing where there are none."""
        if not self.sets.train:
            return {}
        (name,) = self.sets.train
        groups = self.open(name)
        # The cache file's name is a fingerprint of all that the groups depend on.
        return {"responses": groups.path.stem[:12], "groups": len(groups), "batch_groups": self.batch_groups}

    def _batches(self, groups: GroupDataset, batching: Batching) -> GroupBatches:
        layout = layout_of(batching.layout, batching.steady_tokens)
        return GroupBatches(groups, layout, batching.read_at, batching.pad_id)
