"""`PreferenceDataModule`: from sources of preference pairs, and of responses, to every loader that a Trainer asks for.

The one data module of all reward models. It knows sources, a tokenizer and a Trainer, and hands all else on: rows to
`prepare_pairs` and `prepare_groups`, order to `PairBatchSampler` and `GroupStream`, grids to a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from transformers import PreTrainedTokenizerBase

from lightning_rm.batch import LayoutName, ReadAt
from lightning_rm.data.choice import Choice, LayoutSetting, choose_layout
from lightning_rm.data.dataset import PairDataset
from lightning_rm.data.fitting import Overlong
from lightning_rm.data.group_dataset import GroupDataset
from lightning_rm.data.layouts import LAYOUTS
from lightning_rm.data.loader import (
    BatchLoader,
    GroupBatches,
    PairBatches,
    PairLoader,
    ResponseLoader,
    StreamedGroups,
)
from lightning_rm.data.orders import Order
from lightning_rm.data.repeats import sequence_index, shared_prompts
from lightning_rm.data.report import DataReport
from lightning_rm.data.response_sets import ResponseSets
from lightning_rm.data.resume import Position, check_position
from lightning_rm.data.rows import Source
from lightning_rm.data.sampler import PLAN_VERSION, PairBatchSampler
from lightning_rm.data.sets import AnyGroupSource, AnySource, check_names, group_sets, pair_sets
from lightning_rm.data.tokenize import TokenizePolicy, prepare_pairs
from lightning_rm.data.tokenize_groups import prepare_groups
from lightning_rm.data.treating import named_treatments, treated
from lightning_rm.strength import Treatment

T = TypeVar("T")

EvaluationLoaders = list[PairLoader | ResponseLoader]


class PreferenceDataModule(L.LightningDataModule):
    """Preference pairs for training, validation and test.

    Every pair is read once an epoch over all ranks, in an order that depends on `seed` and the epoch alone; training
    goes on in the middle of an epoch with exactly the pairs that were not read yet.

    Where there are `responses`, the first micro-batch of every optimizer step carries a batch of them for each of the
    step's micro-batches, from a stream with epochs of its own.

    Args:
        tokenizer: as `load_tokenizer` gives it.
        train: a source; a file or a list of files; or rows in memory, a list of dicts or a `datasets.Dataset`.
        val: named sets, each given as `train` is; one alone is named `val`.
        test: the same; one alone is named `test`.
        read_at: the token that rewards are read at: the model's `read_at`.
        fast_layouts: those that the model honours at no cost, its `fast_layouts`: `layout=auto` takes one of them. None
            for all that go with `read_at`.
        max_tokens: the most tokens of a whole conversation.
        overlong: what to do with longer ones: `drop`, `truncate_prompt`, `truncate_response` or `error`.
        identical: what to do with pairs of one response twice: `drop` or `error`.
        on_bad_row: what to do with rows that cannot be read: `error` or `drop`.
        layout: `padded`, `packed`, `shared_prefix`, or `auto` for the one that the model and the training pairs call
            for.
        order: of training pairs: `random`; `length`, batches of pairs alike in length; `prompt`, batches of pairs that
            share responses; `strongest_first` and `weakest_first`, a curriculum by strength.
        batch_pairs: pairs of a micro-batch on each device.
        batch_tokens: the most grid tokens of a micro-batch instead; `batch_pairs` is not read then.
        eval_batch_pairs: pairs of an evaluation batch on each device; None takes the training size.
        val_fraction: where there is no `val`, the share of the prompts of `train` that is held out as `val`. The split
            does not depend on `seed`, so that runs of several seeds are measured on the same pairs.
        num_workers: worker processes of each loader.
        seed: of the order of training pairs.
        cache_dir: where tokenised pairs are kept; None takes `cache.default_cache_dir()`.
        treatments: of the training pairs by their strength, one after the other (see `strength`): name -> treatment, or
            a list of them. Every module then trains on the treated labels, margins and weights.
        resample: from the source of training pairs to the one that is trained on, such as a partial of
            `resampling.WithoutFold` or `resampling.Bootstrap`; validation pairs are held out before.
        responses: groups of responses that go with the training pairs: a source, or a file.
        batch_groups: groups of a batch of responses on each device.
        val_responses: named sets of responses that the model is evaluated on after the pairs of `val`, each a source or
            a file; one alone is named `val_responses`.
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
            option is none of its words.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        train: AnySource | None = None,
        val: Mapping[str, AnySource] | AnySource | None = None,
        test: Mapping[str, AnySource] | AnySource | None = None,
        *,
        read_at: ReadAt = "last",
        fast_layouts: Collection[LayoutName] | None = None,
        max_tokens: int = 1024,
        overlong: Overlong = "drop",
        identical: Literal["drop", "error"] = "drop",
        on_bad_row: Literal["error", "drop"] = "error",
        layout: LayoutSetting = "padded",
        order: Order = "length",
        batch_pairs: int | None = 16,
        batch_tokens: int | None = None,
        eval_batch_pairs: int | None = None,
        val_fraction: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        treatments: Mapping[str, Treatment] | Sequence[Treatment] = (),
        resample: Callable[[Source], Source] | None = None,
        responses: AnyGroupSource | None = None,
        batch_groups: int = 4,
        val_responses: Mapping[str, AnyGroupSource] | AnyGroupSource | None = None,
        test_responses: Mapping[str, AnyGroupSource] | AnyGroupSource | None = None,
    ) -> None:
        super().__init__()
        if batch_pairs is None and batch_tokens is None:
            raise ValueError("batch_pairs and batch_tokens are both None; set one of them")
        sizes = {"batch_pairs": batch_pairs, "batch_tokens": batch_tokens, "eval_batch_pairs": eval_batch_pairs}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name}={size}; it must be 1 or more, or None")
        pad_id: Any = tokenizer.pad_token_id  # transformers declares lists too
        if pad_id is None:
            raise ValueError("the tokenizer has no pad token; load it with load_tokenizer, which chooses one")
        for name, value, words in (
            ("read_at", read_at, get_args(ReadAt)),
            ("layout", layout, (*LAYOUTS, "auto")),
            ("order", order, get_args(Order)),
        ):
            if value not in words:
                raise ValueError(f"{name}={value!r}; it must be one of {', '.join(words)}")
        self.tokenizer = tokenizer
        self._pad_id = int(pad_id)
        self.policy = TokenizePolicy(max_tokens, overlong, identical, on_bad_row)
        self.read_at: ReadAt = read_at
        if fast_layouts is None:
            fast_layouts = [name for name in LAYOUTS if read_at == "last" or name != "shared_prefix"]
        if layout == "shared_prefix" and read_at == "first":
            raise ValueError(
                "layout=shared_prefix: an encoder's prompt sees the response and cannot be computed once for two of "
                "them; use layout=packed, padded or auto"
            )
        self._layout: LayoutSetting = layout
        self._fast_layouts = fast_layouts
        self.order: Order = order
        self.batch_pairs = None if batch_tokens is not None else batch_pairs
        self.batch_tokens = batch_tokens
        self.eval_batch_pairs = eval_batch_pairs
        self.num_workers = num_workers
        self.seed = seed
        self.cache_dir = cache_dir
        self.treatments = named_treatments(treatments)
        self.datasets: dict[str, PairDataset] = {}
        self._repeats: dict[tuple[Any, str], Any] = {}
        self._pairs = pair_sets(train, val, test, val_fraction, resample)
        groups = group_sets(responses, val_responses, test_responses)
        check_names([*self._pairs.names, *groups.names])
        self.val_names, self.test_names = tuple(self._pairs.val), tuple(self._pairs.test)
        self.val_response_names, self.test_response_names = tuple(groups.val), tuple(groups.test)
        self.responses = ResponseSets(
            groups,
            batch_groups,
            partial(prepare_groups, tokenizer=tokenizer, policy=self.policy, cache_dir=cache_dir),
            self._group_batches,
            num_workers,
            seed,
        )

    @cached_property
    def choice(self) -> Choice:
        """How samples are laid on the token grid, and why. `auto` measures the pairs of the first set that is open."""
        names = [*self.datasets, *self._pairs.names]
        if self._layout != "auto" or not names:
            return choose_layout(self._layout, self._fast_layouts)
        self._open(names[0])
        return choose_layout("auto", self._fast_layouts, self.datasets[names[0]])

    @property
    def layout(self) -> LayoutName:
        """The name of the layout that was chosen."""
        return self.choice.layout

    @property
    def reports(self) -> dict[str, DataReport]:
        """Name -> what became of every row, of the sets that are set up."""
        return {name: opened.report for name, opened in (self.datasets | self.responses.opened).items()}

    def prepare_data(self) -> None:
        """Tokenise every set into the cache; Lightning calls this in one process of each node."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open the sets of a stage: `fit`, `validate`, `test`, or None for all.

        Raises:
            ValueError: if a pair alone is over `batch_tokens`, or a set has the name of another's subset and both would
                be measured under one name.
        """
        names = self._pairs.of_stage(stage)
        for name in names:
            self._open(name)
        self._check_names_of_metrics()
        for name in names:  # now, and not when it is first read, which may be after training
            if self._num_pairs(name) is None:
                self._loader(name, None, "length", shuffle=False)
        for name in self.responses.sets.of_stage(stage):
            self.responses.open(name)

    def train_dataloader(self) -> PairLoader:
        """Training pairs in the order of the epoch, from where the trainer stands, and the responses that go with them.

        Raises:
            ValueError: if there is no training set, or a pair alone is over `batch_tokens`.
        """
        if not self._pairs.train:
            raise ValueError("there is nothing to train on; give the data module a train source")
        trainer: Any = self.trainer  # not all of its attributes are declared
        return self._loader(
            "train",
            self.batch_pairs,
            self.order,
            shuffle=not (trainer and trainer.overfit_batches),
            accumulate=trainer.accumulate_grad_batches if trainer else 1,
            span=self._span if trainer and trainer.training else None,
            responses=self.responses.streamed(*self._rank()),
        )

    def val_dataloader(self) -> EvaluationLoaders:
        """One loader a validation set: of pairs in the order of `val_names`, then of responses."""
        return self._evaluation_loaders(self.val_names, self.val_response_names)

    def test_dataloader(self) -> EvaluationLoaders:
        """One loader a test set: of pairs in the order of `test_names`, then of responses."""
        return self._evaluation_loaders(self.test_names, self.test_response_names)

    def state_dict(self) -> dict[str, Any]:
        """What the trainer's position in the epoch means."""
        trainer = self.trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return {}
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # declared as its base class
        position: Position = {
            "settings": self._settings(),
            "place": progress.processed,
            "num_batches": trainer.num_training_batches,
        }
        return dict(position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that training can go on from a checkpoint's position; the trainer itself takes the position up.

        Raises:
            ValueError: if it stands in the middle of an epoch that this run would read in another order.
        """
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            check_position(Position(**state_dict), self._settings())

    def _open(self, name: str) -> None:
        if name not in self.datasets:
            pairs = prepare_pairs(self._pairs.sources[name], self.tokenizer, self.policy, self.cache_dir, name)
            self.datasets[name] = treated(pairs, self.treatments) if name == "train" else pairs

    def _evaluation_loaders(self, names: Sequence[str], response_names: Sequence[str]) -> EvaluationLoaders:
        order: Order = "prompt" if self.order == "prompt" else "length"
        pairs = [self._loader(name, self._num_pairs(name), order, shuffle=False) for name in names]
        return [*pairs, *(self.responses.evaluation_loader(name, *self._rank()) for name in response_names)]

    def _num_pairs(self, name: str) -> int | None:
        """Pairs of a set's micro-batch; None where they are cut by `batch_tokens`."""
        return self.batch_pairs if name in self._pairs.train else self.eval_batch_pairs or self.batch_pairs

    def _check_names_of_metrics(self) -> None:
        """Raise if `val/hard` would be both a set of that name and a subset of the set `val`; the same for `test`."""
        for stage, names in (("val", self.val_names), ("test", self.test_names)):
            subsets = self.datasets[stage].subset_names if stage in names and stage in self.datasets else ()
            if both := sorted({*names, *self.responses.sets.names} & set(subsets) - {stage}):
                raise ValueError(
                    f"{', '.join(both)}: a set of that name and a subset of the set {stage} would both be measured as "
                    f"{stage}/{both[0]}; give the set another name"
                )

    def _loader(
        self,
        name: str,
        num_pairs: int | None,
        order: Order,
        *,
        shuffle: bool,
        accumulate: int = 1,
        span: Callable[[], tuple[int, int]] | None = None,
        responses: StreamedGroups | None = None,
    ) -> PairLoader:
        self._open(name)
        pairs = self.datasets[name]
        rank, world_size = self._rank()
        budget = self.batch_tokens if num_pairs is None else None
        prompts = self._found(shared_prompts, name) if budget and self.layout == "shared_prefix" else None
        sampler = PairBatchSampler(
            pairs.lengths,
            pairs.prompt_index,
            num_pairs=num_pairs,
            num_tokens=budget,
            order=order,
            token_cost=self.layout,
            sequence_index=self._found(sequence_index, name) if order == "prompt" else None,
            prompts=prompts,
            strength=pairs.strength.mean,
            rank=rank,
            world_size=world_size,
            accumulate=accumulate,
            seed=self.seed,
            shuffle=shuffle,
            span=span,
            with_responses=responses is not None,
        )
        batches = PairBatches(pairs, name, LAYOUTS[self.layout], self.read_at, self._pad_id, responses)
        return BatchLoader(batches, sampler, self.num_workers)

    def _group_batches(self, groups: GroupDataset) -> GroupBatches:
        return GroupBatches(groups, LAYOUTS[self.layout], self.read_at, self._pad_id)

    def _found(self, find: Callable[[PairDataset], T], name: str) -> T:
        """What `sequence_index` or `shared_prompts` finds in a set; found once."""
        if (find, name) not in self._repeats:
            self._repeats[find, name] = find(self.datasets[name])
        return self._repeats[find, name]

    def _span(self) -> tuple[int, int]:
        """The next micro-batch of this epoch, as the trainer counts it, and the one that it stops before."""
        assert self.trainer is not None
        return self.trainer.fit_loop.batch_idx + 1, int(self.trainer.num_training_batches)

    def _rank(self) -> tuple[int, int]:
        """This process's place among those that read different pairs, and their number."""
        place = self.trainer.distributed_sampler_kwargs if self.trainer else None
        return (place["rank"], place["num_replicas"]) if place else (0, 1)

    def _settings(self) -> dict[str, str | int | None]:
        pairs = self.datasets["train"]
        return {
            # The cache file's name is a fingerprint of all that the pairs depend on, wherever their files lie.
            "pairs": f"{len(pairs):,} (fingerprint {pairs.path.stem[:12]})",
            "treatments": _in_words(self.treatments.values()),
            "batch_pairs": self.batch_pairs,
            "batch_tokens": self.batch_tokens,
            "order": self.order,
            "layout": self.layout if self.batch_tokens else None,  # else the same pairs meet in every layout
            "plan": PLAN_VERSION,
            "seed": self.seed,
            "devices": self._rank()[1],
            "accumulate_grad_batches": self.trainer.accumulate_grad_batches if self.trainer else 1,
            **self.responses.settings(),
        }


def _in_words(treatments: Collection[Treatment]) -> str | None:
    """Treatments with their options, `1. flip(below_quantile=0.1), 2. adaptive_margin(scale=1.0)`; None for none."""
    named = named_treatments(list(treatments)).items()
    return ", ".join(f"{name}({_options(treatment)})" for name, treatment in named) or None


def _options(treatment: Treatment) -> str:
    options: dict[str, Any] = treatment.keywords if isinstance(treatment, partial) else {}
    return ", ".join(f"{name}={value!r}" for name, value in sorted(options.items()))
