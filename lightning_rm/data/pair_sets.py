"""The sets of preference pairs of a data module: opened when they are asked for, and read a rank's share at a time.

The mirror of `group_sets`. It knows tokenised pairs, orders and batch sizes; not where pairs came from, and no
trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from lightning.pytorch.utilities import rank_zero_warn

from lightning_rm.data.batches.batching import Batching
from lightning_rm.data.batches.group_batches import StreamedGroups
from lightning_rm.data.batches.layouts import layout_of
from lightning_rm.data.batches.loader import BatchLoader, PairBatches, PairLoader
from lightning_rm.data.batches.orders import Order
from lightning_rm.data.batches.repeats import sequence_index, shared_prompts
from lightning_rm.data.batches.sampler import PLAN_VERSION, PairBatchSampler
from lightning_rm.data.batches.share import Share
from lightning_rm.data.rows import Source
from lightning_rm.data.sets import Sets
from lightning_rm.data.sources.resampling import PromptSplit
from lightning_rm.data.store.known_prompts import warn_of_known_prompts
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.treated import in_words, treated
from lightning_rm.strength import ById, Treatment

T = TypeVar("T")


class PairSets:
    """Named sets of pairs; one is opened, and tokenised, when it is first asked for.

    Args:
        sets: the sources by name.
        prepare: makes tokenised pairs of a source: `prepare_pairs` with all but the source and the name given.
        treatments: of the training pairs by their strength.

    Attributes:
        opened: name -> tokenised pairs, of the sets that were asked for.
    """

    def __init__(
        self, sets: Sets[Source], prepare: Callable[..., PairDataset], treatments: dict[str, Treatment | ById]
    ) -> None:
        self.sets = sets
        self.prepare = prepare
        self.treatments = treatments
        self.opened: dict[str, PairDataset] = {}
        self._repeats: dict[tuple[Any, str], Any] = {}
        self._compared: set[str] = set()

    def open(self, name: str) -> PairDataset:
        """Return a set's tokenised pairs, those of training treated.

        Warns:
            RowsLeftOut: the first time, if not every row is used as it stands.
        """
        if name not in self.opened:
            pairs = self.prepare(self.sets.sources[name], name=name)
            pairs.report.warn()  # before treatments: what they leave out was asked for
            self.opened[name] = treated(pairs, self.treatments) if name == "train" else pairs
        return self.opened[name]

    def treat(self, treatments: dict[str, Treatment | ById]) -> None:
        """Treat the training pairs otherwise from now on."""
        self.treatments = treatments
        self.opened.pop("train", None)
        self._repeats = {}

    def warn_of_known_prompts(self) -> None:
        """Warn, once a set, of pairs to measure on whose prompts are trained on too.

        What is held out of the training set itself has none: it is split by prompt.
        """
        if "train" not in self.opened:
            return
        others = self.opened.keys() & {*self.sets.val, *self.sets.test} - self._compared
        for name in (name for name in self.sets.sources if name in others):
            self._compared.add(name)
            if not isinstance(self.sets.sources[name], PromptSplit):
                warn_of_known_prompts(self.opened[name], self.opened["train"])

    def train_loader(self, batching: Batching, share: Share, responses: StreamedGroups | None = None) -> PairLoader:
        """Return a rank's training pairs in the order of the epoch, with the responses that go with them.

        Args:
            batching: how they become batches.
            share: which of them the rank reads.
            responses: what goes with a micro-step.

        Raises:
            ValueError: if a pair alone is over `batch_tokens`.

        Warns:
            UserWarning: if more pairs are held out than trained on, or one batch holds them all.
        """
        self._warn_of_sizes(batching.batch_pairs, share.world_size)
        with_responses = responses is not None
        sampler = self._sampler("train", batching, batching.batch_pairs, batching.order, share, with_responses)
        return self._loader("train", sampler, batching, responses)

    def evaluation_loader(self, name: str, batching: Batching, share: Share) -> PairLoader:
        """Return a rank's pairs of a set, each once over all ranks.

        Raises:
            ValueError: if a pair alone is over `batch_tokens`.
        """
        num_pairs = (
            batching.batch_pairs if name in self.sets.train else batching.eval_batch_pairs or batching.batch_pairs
        )
        order: Order = "prompt" if batching.order == "prompt" else "length"
        once = Share(share.rank, share.world_size, shuffle=False)
        sampler = self._sampler(name, batching, num_pairs, order, once)
        return self._loader(name, sampler, batching)

    def _warn_of_sizes(self, batch_pairs: int | None, world_size: int) -> None:
        """Warn of sizes that the user can hardly have meant."""
        train, held_out = self.open("train"), self.sets.val.get("val")
        num_pairs = len(train)
        if isinstance(held_out, PromptSplit) and len(self.open("val")) > num_pairs:
            rank_zero_warn(
                f"val_fraction={held_out.fraction:g}: {len(self.open('val')):,} pairs are held out as val, more than "
                f"the {num_pairs:,} that are trained on"
            )
        if batch_pairs is not None and batch_pairs * world_size > train.num_lists:
            ranks = f" on each of {world_size} devices" if world_size > 1 else ""
            found = f"{train.num_lists:,} training {'lists of responses' if train.has_lists else 'pairs'}"
            rank_zero_warn(f"batch_pairs={batch_pairs}{ranks}: there are {found}, one batch holds them all")

    def check_names(self, names_of_responses: Collection[str]) -> None:
        """Raise if `val/hard` would be both a set of that name and a subset of the set `val`; the same for `test`."""
        for stage, names in (("val", self.sets.val), ("test", self.sets.test)):
            subsets = self.opened[stage].subset_names if stage in names and stage in self.opened else ()
            if both := sorted({*names, *names_of_responses} & set(subsets) - {stage}):
                raise ValueError(
                    f"{', '.join(both)}: a set of that name and a subset of the set {stage} would both be measured as "
                    f"{stage}/{both[0]}; give the set another name"
                )

    def settings(self, batching: Batching) -> dict[str, str | int | None]:
        """Return what the pairs of a training micro-batch depend on, except for devices and accumulation."""
        pairs = self.open("train")
        return {
            # The cache file's name is a fingerprint of all that the pairs depend on, wherever their files lie.
            "pairs": f"{len(pairs):,} (fingerprint {pairs.path.stem[:12]})",
            "treatments": in_words(self.treatments.values()),
            "batch_pairs": batching.batch_pairs,
            "batch_tokens": batching.batch_tokens,
            "order": batching.order,
            "layout": batching.layout if batching.batch_tokens else None,  # else the same pairs meet in every layout
            "steady_tokens": batching.steady_tokens if batching.shares(batching.batch_pairs) else None,
            "plan": PLAN_VERSION,
            "seed": batching.seed,
        }

    def _sampler(
        self,
        name: str,
        batching: Batching,
        num_pairs: int | None,
        order: Order,
        share: Share,
        with_responses: bool = False,
    ) -> PairBatchSampler:
        pairs = self.open(name)
        budget = batching.batch_tokens if num_pairs is None else None
        if pairs.has_lists and order == "prompt":
            order = "length"  # the responses to a prompt are together already
        prompts = self._found(shared_prompts, name) if batching.shares(num_pairs) else None
        lists = pairs.first_of_list if pairs.has_lists else slice(None)
        return PairBatchSampler(
            pairs.list_lengths if pairs.has_lists else pairs.lengths,
            pairs.prompt_index[lists] if order == "prompt" else None,  # found by sorting, for no other order
            num_pairs=num_pairs,
            num_tokens=budget,
            order=order,
            token_cost=batching.layout,
            sequence_index=self._found(sequence_index, name) if order == "prompt" else None,
            prompts=prompts and (prompts[0][lists], prompts[1][lists]),
            steady_tokens=batching.steady_tokens,
            strength=pairs.list_strength if pairs.has_lists else pairs.strength.mean,
            text_lengths=pairs.text_lengths,
            rank=share.rank,
            world_size=share.world_size,
            accumulate=share.accumulate,
            seed=batching.seed,
            shuffle=share.shuffle,
            span=share.span,
            with_responses=with_responses,
            name=lambda row: str(pairs.place(int(pairs.first_of_list[row]))),
        )

    def _loader(
        self, name: str, sampler: PairBatchSampler, batching: Batching, responses: StreamedGroups | None = None
    ) -> PairLoader:
        layout = layout_of(batching.layout, batching.steady_tokens)
        batches = PairBatches(self.open(name), name, layout, batching.read_at, batching.pad_id, responses)
        return BatchLoader(batches, sampler, batching.num_workers)

    def _found(self, find: Callable[[PairDataset], T], name: str) -> T:
        """Return what `sequence_index` or `shared_prompts` finds in a set, which is searched only once."""
        if (find, name) not in self._repeats:
            self._repeats[find, name] = find(self.opened[name])
        return self._repeats[find, name]
