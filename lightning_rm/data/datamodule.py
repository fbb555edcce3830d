"""`PreferenceDataModule`: from sources of preference pairs, and of responses, to every loader that a Trainer asks for.

The one data module of all reward models. It knows sources, a tokenizer and a Trainer, and hands all else on: rows to
`prepare_pairs` and `prepare_groups`, order to `PairBatchSampler` and `GroupStream`, grids to a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import PreferenceBatch
from lightning_rm.counts import check_counts, given, is_number
from lightning_rm.data.batches.batching import Batching, check_batching
from lightning_rm.data.batches.choice import Choice, LayoutSetting, choose_layout
from lightning_rm.data.batches.loader import (
    GroupLoader,
    Iterated,
    PairLoader,
)
from lightning_rm.data.batches.orders import Order
from lightning_rm.data.batches.share import Share
from lightning_rm.data.group_sets import GroupSets
from lightning_rm.data.pair_sets import PairSets
from lightning_rm.data.position import Position, check_position
from lightning_rm.data.rows import Source
from lightning_rm.data.sets import AnyGroupSource, AnySource, check_names, group_sets, pair_sets
from lightning_rm.data.sources.files import Paths
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.store.treated import named_treatments
from lightning_rm.data.stream_limits import check_streamed
from lightning_rm.data.stream_loader import StreamLoader
from lightning_rm.data.stream_set import StreamSet
from lightning_rm.data.tokenize.as_read import as_read
from lightning_rm.data.tokenize.groups import prepare_groups
from lightning_rm.data.tokenize.pairs import TokenizePolicy, prepare_pairs
from lightning_rm.data.tokenize.policy import Overlong
from lightning_rm.data.tokenize.tokenizer import check_tokenizer
from lightning_rm.data.trainer import is_fitting, of_all_ranks, position_of, share_of
from lightning_rm.strength import ById, Treatment
from lightning_rm.tokens import LayoutName, ReadAt, Reading

EvaluationLoaders = list[PairLoader | GroupLoader]


class PreferenceDataModule(L.LightningDataModule):
    """Preference pairs for training, validation and test.

    Every pair is read once an epoch over all ranks, in an order that depends on `seed` and the epoch alone; training
    goes on in the middle of an epoch with exactly the pairs that were not read yet.

    Where there are `responses`, the first micro-batch of every optimizer step carries a batch of them for each of the
    step's micro-batches, from a stream with epochs of its own.

    Args:
        tokenizer: as `load_tokenizer` gives it.
        train: a source; a file or a list of files; or rows in memory, a list of dicts, a `datasets.Dataset` or a
            pandas or polars `DataFrame`. `ParquetShards` are streamed (`data.streaming`).
        val: named sets, each given as `train` is; one alone is named `val`.
        test: the same; one alone is named `test`.
        reading: how the model reads batches: its `reading`. None for a decoder that honours every layout.
        max_tokens: the most tokens of a whole conversation.
        overlong: what to do with longer ones: `drop`, `truncate_prompt`, `truncate_response` or `error`.
        identical: what to do with pairs whose two responses are the same: `drop` or `error`.
        on_bad_row: what to do with rows that cannot be read: `error` or `drop`.
        ties: what to do with pairs whose annotators prefer neither response: `drop`, or `keep` them with the label 1/2.
        layout: `padded`, `packed`, `shared_prefix`, or `auto` for the one that the model and the training pairs call
            for. None takes `auto` where `reading` is given, `padded` otherwise.
        order: of training pairs: `random`; `length`, batches of pairs alike in length; `prompt`, batches of pairs that
            share responses; `strongest_first` and `weakest_first`, a curriculum by strength.
        batch_pairs: pairs of a micro-batch on each device; where rows are k scored responses, lists of them.
        batch_tokens: the most grid tokens of a micro-batch instead; `batch_pairs` is not read then.
        eval_batch_pairs: pairs of an evaluation batch on each device; None takes the training size.
        val_fraction: where there is no `val`, the share of the prompts of `train` that is held out as `val`. The split
            does not depend on `seed`, so that runs of several seeds are measured on the same pairs.
        num_workers: worker processes of each loader.
        prepare_processes: processes that tokenise, for all but small sets of pairs; None takes one a core.
        seed: of the order of training pairs.
        cache_dir: where tokenised pairs are kept; None takes `cache.default_cache_dir()`.
        treatments: of the training pairs by their strength, one after the other (see `strength`): name -> treatment, or
            a list of them. Every module then trains on the treated labels, margins and weights.
        resample: makes the source that is trained on from the source of training pairs, such as a partial of
            `resampling.WithoutFold` or `resampling.Bootstrap`; validation pairs are held out before that.
        decontaminate: name of a benchmark -> its files: training pairs whose prompt has 13 words in a row with one of
            its prompts are left out, and counted (see `sources.contamination`), before any are held out.
        responses: groups of responses that go with the training pairs: a source, a file, or rows in memory.
        batch_groups: groups of a batch of responses on each device.
        val_responses: named sets of responses that the model is evaluated on after the pairs of `val`, each given as
            `responses` is; one alone is named `val_responses`.
        test_responses: the same after `test`; one alone is named `test_responses`.

    Attributes:
        val_names: names of the validation sets of pairs, by `dataloader_idx`.
        test_names: names of the test sets of pairs, by `dataloader_idx`.
        val_response_names: names of the validation sets of responses, whose loaders follow those of the pairs.
        test_response_names: names of the test sets of responses, the same.
        datasets: name -> tokenised pairs, of the sets that are set up; the training set is named `train`.
        choice: the layout that was chosen, and why.
        responses: the sets of responses; `responses.opened` has their tokenised groups by name, those of training named
            `responses`.

    Raises:
        ValueError: if two sets have one name, a batch size is missing or below 1, the tokenizer has no pad token, or an
            option is not one of its words.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        train: AnySource | ParquetShards | None = None,
        val: Mapping[str, AnySource] | AnySource | None = None,
        test: Mapping[str, AnySource] | AnySource | None = None,
        *,
        reading: Reading | None = None,
        max_tokens: int = 1024,
        overlong: Overlong = "drop",
        identical: Literal["drop", "error"] = "drop",
        on_bad_row: Literal["error", "drop"] = "error",
        ties: Literal["drop", "keep"] = "drop",
        layout: LayoutSetting | None = None,
        order: Order = "length",
        batch_pairs: int | None = 16,
        batch_tokens: int | None = None,
        eval_batch_pairs: int | None = None,
        val_fraction: float = 0.0,
        num_workers: int = 0,
        prepare_processes: int | None = None,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        treatments: Mapping[str, Treatment | ById] | Sequence[Treatment | ById] = (),
        resample: Callable[[Source], Source] | None = None,
        decontaminate: Mapping[str, Paths] | None = None,
        responses: AnyGroupSource | None = None,
        batch_groups: int = 4,
        val_responses: Mapping[str, AnyGroupSource] | AnyGroupSource | None = None,
        test_responses: Mapping[str, AnyGroupSource] | AnyGroupSource | None = None,
    ) -> None:
        super().__init__()
        if layout is None:
            layout = "padded" if reading is None else "auto"
        reading = reading or Reading()
        check_batching(layout, reading.read_at, order, batch_pairs, batch_tokens, eval_batch_pairs)
        if not (is_number(val_fraction) and 0 <= val_fraction < 1):
            raise ValueError(f"val_fraction={val_fraction!r}; it is a share of the prompts, from 0 to below 1")
        check_counts(1, **given(prepare_processes=prepare_processes))
        check_counts(0, num_workers=num_workers, seed=seed)
        check_tokenizer(tokenizer)
        pad_id: Any = tokenizer.pad_token_id  # transformers declares lists too
        if pad_id is None:
            raise ValueError("the tokenizer has no pad token; load it with load_tokenizer, which chooses one")
        self.tokenizer = tokenizer
        self._pad_id = int(pad_id)
        self.policy = TokenizePolicy(max_tokens, overlong, identical, on_bad_row, ties)
        self.read_at: ReadAt = reading.read_at
        self._layout: LayoutSetting = layout
        every: tuple[LayoutName, ...] = get_args(LayoutName) if reading.read_at == "last" else ("padded", "packed")
        self._fast_layouts = every if reading.fast_layouts is None else reading.fast_layouts
        self._steady_tokens = reading.steady_tokens
        self.order: Order = order
        self.batch_pairs = None if batch_tokens is not None else batch_pairs
        self.batch_tokens = batch_tokens
        self.eval_batch_pairs = eval_batch_pairs
        self.num_workers = num_workers
        self.seed = seed
        self.cache_dir = cache_dir
        treatments = named_treatments(treatments)
        self._streamed: StreamSet | None = None
        if isinstance(train, ParquetShards):
            check_streamed(
                order,
                batch_pairs=self.batch_pairs,
                treatments=treatments,
                resample=resample,
                decontaminate=decontaminate,
                responses=responses,
                val_fraction=0.0 if val is not None else val_fraction,
            )
            self._streamed, train = StreamSet(train, tokenizer, self.policy), None
        sets = pair_sets(train, val, test, val_fraction, resample, decontaminate)
        groups = group_sets(responses, val_responses, test_responses)
        check_names([*sets.names, *groups.names])
        self.val_names, self.test_names = tuple(sets.val), tuple(sets.test)
        self.val_response_names, self.test_response_names = tuple(groups.val), tuple(groups.test)
        prepared: dict[str, Any] = {"tokenizer": tokenizer, "policy": self.policy, "cache_dir": cache_dir}
        prepare = partial(prepare_pairs, **prepared, num_processes=prepare_processes)
        self._pairs = PairSets(sets, prepare, treatments)
        self.datasets = self._pairs.opened
        self.responses = GroupSets(groups, batch_groups, partial(prepare_groups, **prepared))

    @property
    def treatments(self) -> Mapping[str, Treatment | ById]:
        """The treatments of the training pairs by name; others hold from the next loader on."""
        return self._pairs.treatments

    @treatments.setter
    def treatments(self, treatments: Mapping[str, Treatment | ById] | Sequence[Treatment | ById]) -> None:
        named = named_treatments(treatments)
        if self.is_streamed:
            check_streamed(self.order, batch_pairs=self.batch_pairs, treatments=named)
        self._pairs.treat(named)

    @cached_property
    def choice(self) -> Choice:
        """How samples are laid on the token grid, and why. `auto` measures the pairs of the first set that is open."""
        names = [] if self.is_streamed else [*self.datasets, *self._pairs.sets.names]
        if self._layout != "auto" or not names:
            return choose_layout(self._layout, self._fast_layouts)
        return choose_layout("auto", self._fast_layouts, self._pairs.open(names[0]), self._steady_tokens)

    @property
    def layout(self) -> LayoutName:
        """The name of the layout that was chosen."""
        return self.choice.layout

    @property
    def has_train(self) -> bool:
        """Whether there is a set to train on."""
        return bool(self._pairs.sets.train) or self.is_streamed

    @property
    def is_streamed(self) -> bool:
        """Whether training pairs are streamed, and counted as they come."""
        return self._streamed is not None

    @property
    def reports(self) -> dict[str, DataReport]:
        """Name -> what became of every row, of the sets that are set up."""
        opened = self.datasets | self.responses.opened
        streamed = self._streamed.reports if self._streamed else {}
        return streamed | {name: one.report for name, one in opened.items()}

    def __str__(self) -> str:
        """Say what became of the rows of every set that is set up."""
        return "\n".join(map(str, self.reports.values())) or "no set has been read yet; setup() reads them"

    def train_pairs(self) -> PairDataset | None:
        """Return the training pairs; None before the set is open."""
        return self.datasets.get("train")

    def name_of_pair(self, row: int) -> str:
        """Return what messages call a training pair, by its place in the set."""
        return self._streamed.name(row) if self._streamed else f"pair {self.datasets['train'].text(row).id}"

    def as_read(self, row: int = 0) -> str:
        """Return a training pair as the model reads it: after its template, its cuts and its treatments, special tokens
        and all. Of pairs that are streamed, row 0 is the first of the shards.

        Raises:
            ValueError: if there is no such pair.
        """
        pairs = self._beginning(row + 1)
        if not 0 <= row < len(pairs):
            raise ValueError(f"row={row}: there are {len(pairs):,} training pairs, counted from 0")
        return as_read(pairs, row, self.tokenizer, self.read_at)

    def first_as_read(self, number: int) -> list[str]:
        """Return the first training pairs as the model reads them, so many or as many as there are."""
        pairs = self._beginning(number)
        return [as_read(pairs, row, self.tokenizer, self.read_at) for row in range(min(number, len(pairs)))]

    def _beginning(self, number: int) -> PairDataset:
        """Return training pairs of which the first so many are the first."""
        if self._streamed is not None:
            return self._streamed.beginning(number, self._batching)
        if not self.has_train:
            raise ValueError("there are no training pairs to show: the data module has no train source")
        return self._pairs.open("train")

    def prepare_data(self) -> None:
        """Tokenise every set into the cache; Lightning calls this in one process of each node."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open the sets of a stage: `fit`, `validate`, `test`, or None for all.

        Raises:
            ValueError: if a pair alone is over `batch_tokens`, or a set has the name of another's subset and both would
                be measured under one name.

        Warns:
            UserWarning: once a set that is measured on, if prompts of it are trained on too.
        """
        if stage == "fit" and self._streamed is not None:
            self._streamed.begin()
        names = self._pairs.sets.of_stage(stage)
        for name in names:
            self._pairs.open(name)
        self._pairs.check_names(self.responses.sets.names)
        self._pairs.warn_of_known_prompts()
        if self.batch_tokens is not None:
            for name in names:  # a pair over the budget raises now, and not after training
                self._pairs.evaluation_loader(name, self._batching, Share())
        for name in self.responses.sets.of_stage(stage) if stage != "predict" else ():
            self.responses.open(name)

    def train_dataloader(self) -> PairLoader | StreamLoader:
        """Load training pairs in the order of the epoch, from where the trainer stands, and the responses that go with
        them.

        Raises:
            ValueError: if there is no training set, or a pair alone is over `batch_tokens`.
        """
        share = share_of(self.trainer)
        if self._streamed is not None:
            check_streamed(self.order, batch_pairs=self.batch_pairs)  # which may have been set since
            return self._streamed.loader(self._batching, share, self.trainer.current_epoch if self.trainer else 0)
        if not self._pairs.sets.train:
            raise ValueError("there is nothing to train on; give the data module a train source")
        return self._pairs.train_loader(self._batching, share, self.responses.streamed(self._batching, share))

    def val_dataloader(self) -> EvaluationLoaders:
        """Return a loader for each validation set: of pairs in the order of `val_names`, then of responses."""
        return self._evaluation_loaders(self.val_names, self.val_response_names)

    def test_dataloader(self) -> EvaluationLoaders:
        """Return a loader for each test set: of pairs in the order of `test_names`, then of responses."""
        return self._evaluation_loaders(self.test_names, self.test_response_names)

    def predict_dataloader(self) -> list[Iterated[PreferenceBatch]]:
        """Return a loader for each set of pairs: the test sets, or else the validation sets or the training set."""
        names = self._pairs.sets.of_stage("predict")
        share = share_of(self.trainer)
        return [Iterated(self._pairs.evaluation_loader(name, self._batching, share)) for name in names]

    def state_dict(self) -> dict[str, Any]:
        """Return what the trainer's position in the epoch means."""
        if self.trainer is None or not is_fitting(self.trainer):
            return {}
        position = position_of(self.trainer, self._settings())
        readers = self._streamed.readers(position["place"]) if self._streamed else None
        return {**position} if readers is None else {**position, "readers": of_all_ranks(readers)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that training can go on from a checkpoint's position; the trainer itself restores it.

        Raises:
            ValueError: if it stands in the middle of an epoch that this run would read in another order.
        """
        if not is_fitting(self.trainer):
            return
        state = dict(state_dict)
        readers: list[Any] | None = state.pop("readers", None)
        position, settings = Position(**state), self._settings()
        check_position(position, settings)
        # With other settings the order is another one, which is read from its beginning.
        if self._streamed and readers is not None and settings == position["settings"]:
            place = position["place"] if position["place"] < position["num_batches"] else 0
            self._streamed.go_on(readers[share_of(self.trainer).rank], place)

    def _evaluation_loaders(self, names: Sequence[str], response_names: Sequence[str]) -> EvaluationLoaders:
        share = share_of(self.trainer)
        pairs = [self._pairs.evaluation_loader(name, self._batching, share) for name in names]
        return [*pairs, *(self.responses.evaluation_loader(name, self._batching, share) for name in response_names)]

    @property
    def _batching(self) -> Batching:
        return Batching(
            self.layout,
            self.read_at,
            self._pad_id,
            self.order,
            self.batch_pairs,
            self.batch_tokens,
            self.eval_batch_pairs,
            self.num_workers,
            self.seed,
            self._steady_tokens,
        )

    def _settings(self) -> dict[str, str | int | None]:
        share = share_of(self.trainer)
        return {
            **(self._streamed or self._pairs).settings(self._batching),
            "devices": share.world_size,
            "accumulate_grad_batches": share.accumulate,
            **self.responses.settings(),
        }
