"""Benchmarks in training: from local files, at every validation and every so many steps, by name in the logs.

It knows Lightning's hooks and the scoring of items; the module does not know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import lightning as L
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedTokenizerBase

from lightning_rm.callbacks.averages import averaged
from lightning_rm.data.tokenize.policy import Overlong
from lightning_rm.evaluation.benchmarks import find_benchmarks
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark
from lightning_rm.evaluation.checks import spread_over
from lightning_rm.evaluation.credit import Credit
from lightning_rm.evaluation.items import Items
from lightning_rm.evaluation.measure import counted
from lightning_rm.evaluation.rewards import Reading, score_items
from lightning_rm.evaluation.statistics import column_means
from lightning_rm.modules.base import PairwiseRM


class Benchmarks(L.Callback):
    """A callback that scores benchmarks while a model is trained, and logs `benchmark/<name>/<section>`.

    They are scored at every validation, so that early stopping and the choice of the best weights, which happen there,
    read a value of the weights they are about: `monitor=benchmark/llmbar/overall`. With `every_n_steps` they are logged
    between validations too. Every rank scores all of a benchmark: sharded weights are gathered for every forward, and
    all ranks must ask for them alike.

    Args:
        paths: benchmark -> its files or folder; those of None are left out.
        every_n_steps: optimizer steps from one to the next; None for validations alone.
        max_items: the most items of a benchmark, spread evenly over it, for a quick look; None for all.
        tokenizer: of the model; None for the data module's.
        max_tokens: of a conversation; None for the model's own limit.
        overlong: what becomes of a longer one, as in `Reading`.

    Raises:
        ValueError: if there is no path, a name is not a benchmark's, or a number is below 1.
    """

    def __init__(
        self,
        paths: Mapping[str, str | Path | Sequence[str | Path] | None],
        every_n_steps: int | None = None,
        max_items: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_tokens: int | None = None,
        overlong: Overlong = "truncate_response",
    ) -> None:
        self.paths = {name: path for name, path in paths.items() if path is not None}
        if not self.paths:
            raise ValueError(
                "callbacks=benchmarks needs a file or folder: callbacks.benchmarks.paths.llmbar=FOLDER, or another name"
            )
        find_benchmarks(list(self.paths))
        for name, number in (("every_n_steps", every_n_steps), ("max_items", max_items)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: give 1 or more, or null")
        self.every_n_steps, self.max_items = every_n_steps, max_items
        self.tokenizer = tokenizer
        self.reading = Reading(max_tokens, overlong)
        self.items: dict[str, tuple[Benchmark, Items]] = {}
        self._last_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Read the files, before anything is trained."""
        self.read()
        if self.tokenizer is None:
            self.tokenizer = trainer.datamodule.tokenizer  # pyright: ignore[reportAttributeAccessIssue]  # set, not declared

    def metric_names(self) -> list[str]:
        """Return the names of all that will be logged; the files are read for it."""
        self.read()
        rewards = {
            name: benchmark.columns(items, items.length, "own") for name, (benchmark, items) in self.items.items()
        }
        return [key for name, columns in rewards.items() for key in self._sections(name, columns)]

    def read(self) -> None:
        """Read the files once, and say what they lack of the whole benchmark."""
        if self.items:
            return
        for benchmark in find_benchmarks(list(self.paths)):
            items = benchmark.read(self.paths[benchmark.name])
            for note in benchmark.missing(items):
                rank_zero_info(f"{benchmark.title}: {note}")
            if self.max_items is not None:
                items = spread_over(items, self.max_items)
            self.items[benchmark.name] = benchmark, items

    def measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        """Return the sections of every benchmark, by the names they are logged under.

        Raises:
            ValueError: if a reward is not finite; the message names the row.
        """
        model = cast(PairwiseRM, pl_module).measured_model()
        tokenizer = cast(PreTrainedTokenizerBase, self.tokenizer)
        found: dict[str, float] = {}
        for name, (benchmark, items) in self.items.items():
            with trainer.precision_plugin.val_step_context():
                scored = score_items(model, tokenizer, items, self.reading)
            found |= self._sections(name, counted(benchmark.columns(items, scored.rewards, "own"), ~scored.left_out))
        return found

    def _sections(self, name: str, columns: Mapping[str, Credit]) -> dict[str, float]:
        """Return sections by the names they are logged under, without details."""
        sections = self.items[name][0].combine(column_means(columns))
        return {f"benchmark/{name}/{key}": float(value) for key, value in sections.items() if "/" not in key}

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure with every validation, in training and after it."""
        if not trainer.sanity_checking:
            self._last_step = trainer.global_step
            with averaged(pl_module, put_back_before=self):
                values = self.measure(trainer, pl_module)
            pl_module.log_dict(values, batch_size=1, sync_dist=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember that the step a run goes on from has been measured."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Measure between validations, on the steps that were asked for."""
        step, every = trainer.global_step, self.every_n_steps
        if every is None or step % every or step == self._last_step:
            return
        self._last_step = step
        with averaged(pl_module):
            values = self.measure(trainer, pl_module)
        for logger in trainer.loggers:  # at this step, whatever `log_every_n_steps` says of the others
            logger.log_metrics(values, step=step)
