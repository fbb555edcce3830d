"""One model on one benchmark after the other: loaded only if a reward has not been kept, and released at the end."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lightning_rm.digests import FileState, check_unchanged
from lightning_rm.drafts import is_full
from lightning_rm.evaluation.asked import Asked
from lightning_rm.evaluation.benchmarks.benchmark import OVERALL
from lightning_rm.evaluation.checks import NUM_ITEMS, spread_over, swapped
from lightning_rm.evaluation.diagnostics import diagnose, temperature_of
from lightning_rm.evaluation.invariance import invariance
from lightning_rm.evaluation.items import Items
from lightning_rm.evaluation.kept import Kept, KeptRewards
from lightning_rm.evaluation.measure import Row, counted, measure
from lightning_rm.evaluation.probes import probe
from lightning_rm.evaluation.rewards import Reading, Scored, score_items
from lightning_rm.evaluation.statistics import column_means
from lightning_rm.evaluation.temperature import store_temperature
from lightning_rm.models.ensembles.files import weights_state
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.load import LoadedModel, find_folder, load_model
from lightning_rm.scoring.parts import Parts

Progress = Callable[[str, str, int, int], None]
"""Told the model, the benchmark, how many of its responses are scored and how many there are."""


@dataclass(frozen=True)
class Options:
    """What an evaluation does beyond scoring, as `evaluate` takes it."""

    diagnostics: bool
    probe_items: int
    num_draws: int
    num_random: int
    seed: int


@dataclass
class Answer:
    """What one model said of one benchmark; `members`: what each member is worth alone, in the main figure."""

    row: Row
    kept: Kept
    members: list[float]
    diagnostics: dict[str, Any] = field(default_factory=dict[str, Any])


class Evaluator:
    """One model on one benchmark after the other; it is loaded only if a reward has not been kept."""

    def __init__(
        self,
        name: str,
        place: str | Path | LoadedModel,
        weights: str,
        new_head: bool,
        reading: Reading,
        options: Options,
        device: str | torch.device | None,
        dtype: str,
        progress: Progress | None,
        kept: KeptRewards | None,
    ) -> None:
        self.name, self.place, self.weights, self.new_head = name, place, weights, new_head
        self.reading, self.options, self.progress, self.kept = reading, options, progress, kept
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype
        self.unloadable = False
        self.unstored: str | None = None
        self._loaded: LoadedModel | None = None

    def answer(self, asked: Asked, temperature: float | None) -> Answer:
        """Return the model's rewards of a benchmark, and what they are worth."""
        items, benchmark, options = asked.items, asked.benchmark, self.options
        found = self.rewards(items, benchmark.name)
        row = measure(
            benchmark,
            items,
            found.scored.rewards,
            model=self.name,
            left_out=found.scored.left_out,
            num_draws=options.num_draws,
            seed=options.seed,
        )
        diagnostics = self.diagnose(items, found.scored, temperature) if options.diagnostics else {}
        return Answer(row, found, self.members(asked, found.scored), diagnostics)

    def members(self, asked: Asked, scored: Scored) -> list[float]:
        """Return what each member is worth alone: `overall`, or the mean over the categories where there is none."""
        if scored.votes is None:
            return []
        values: list[float] = []
        for member in range(scored.votes.shape[-1]):
            columns = asked.benchmark.columns(asked.items, scored.votes[..., member], "own")
            found = asked.benchmark.combine(column_means(counted(columns, ~scored.left_out)))
            main = (
                [found[OVERALL]]
                if OVERALL in found
                else [found[name] for name in asked.benchmark.categories if name in found]
            )
            values.append(float(np.mean(main)))
        return values

    def rewards(self, items: Items, benchmark: str, *, check: bool = True) -> Kept:
        """Return the rewards of a benchmark's items: kept ones, or new ones, which are kept before anything else is
        done.

        Args:
            items: what to score.
            benchmark: the name that they are kept by.
            check: also exchange the responses of some items, which has to give 1 - accuracy.
        """
        key = found = parts = None
        if self.kept is not None:
            self._check_unchanged()
            key = self.kept.key(self.folder, items, self.reading, self.dtype, self.new_head)
            self._check_unchanged()
            found = self.kept.read(benchmark, self.name, key, items)
            if found is None:
                parts = self.kept.parts(benchmark, self.name, key, len(items))
        scored = self.score(items, benchmark, parts) if found is None else found.scored
        swap = {} if found is None else found.swap
        some = spread_over(items, NUM_ITEMS, scored.left_out)
        if check and len(some) and not swap:
            swap = swapped(some, lambda asked: self.score(asked).rewards)
        if self.kept is None:
            return Kept(scored, swap)
        if found is not None and found.is_current and found.swap == swap:
            return found
        return self.kept.write(benchmark, self.name, key, items, scored, swap)

    def score(self, items: Items, benchmark: str | None = None, parts: Parts | None = None) -> Scored:
        """Return the rewards of items, and report progress where they belong to a benchmark."""
        model, tokenizer = self.load()
        total, done = int(np.isfinite(items.gold).sum()), 0

        def told(number: int) -> None:
            nonlocal done
            done += number
            if self.progress is not None and benchmark is not None:
                self.progress(self.name, benchmark, done, total)

        scored = score_items(model, tokenizer, items, self.reading, told, parts)
        told(total - done)  # items that were left out are finished, too
        return scored

    def diagnose(self, items: Items, scored: Scored, temperature: float | None) -> dict[str, Any]:
        """Return diagnostics of the rewards, and of how they move with what should not matter."""
        found = diagnose(items, scored.rewards, scored.votes, temperature)
        some = spread_over(items, self.options.probe_items, scored.left_out)
        model, tokenizer = self.load()
        found["invariance"] = invariance(model, tokenizer, spread_over(some, NUM_ITEMS), self.reading)
        before = self.score(some).rewards
        # An edit may make a text too long, which is no error of the data that were given.
        reading = replace(self.reading, overlong="drop") if self.reading.overlong == "error" else self.reading
        found["probes"] = probe(
            some, before, lambda asked: score_items(model, tokenizer, asked, reading).rewards, self.options.seed
        )
        return found

    def temperature(self, items: Items) -> float | None:
        """Return the temperature of validation margins, and store it with the model where that is a folder.

        That of a random head, which the folder does not hold, is not stored. `unstored` says why a folder did not take
        it, or there is none.
        """
        scored = self.score(items)
        margin = items.comparisons.margins(scored.rewards)
        known = np.isfinite(margin)
        value, why_none = temperature_of(margin[known], items.comparisons.label[known])
        if value is None:
            self.unstored = (
                f"{self.name} has no temperature: its rewards of the validation pairs are {why_none}, and no scale "
                "makes them likeliest"
            )
            return None
        if self.folder is not None and not self.new_head:
            try:
                store_temperature(self.folder, value)
            except OSError as error:  # a folder that others own is measured all the same
                if is_full(error):
                    raise
                self.unstored = f"{self.name}: its temperature {value:.4g} is not stored with it: {error}"
        return value

    def _check_unchanged(self) -> None:
        """Check that the weights that are loaded are those that rewards are kept by; the first call notes them.

        Raises:
            ValueError: if they have been written again since then.
        """
        before = self._state
        check_unchanged(self.name, self._states(), before, "in use")

    @cached_property
    def _state(self) -> list[FileState]:
        """Of its weights, before anything was made of them."""
        return self._states()

    def _states(self) -> list[FileState]:
        return [] if self.folder is None else weights_state(self.folder)

    @property
    def folder(self) -> Path | None:
        """The model's folder on this machine; None for one of the hub, or in memory."""
        if isinstance(self.place, tuple):
            return None
        return find_folder(Path(self.place).expanduser(), self.weights)

    def load(self) -> tuple[AnyRewardModel, PreTrainedTokenizerBase]:
        """Return the model and its tokenizer, loaded once."""
        if self._loaded is None:
            if isinstance(self.place, tuple):
                self._loaded = self.place
            else:
                self.unloadable = True  # until loading has succeeded
                self._check_unchanged()
                self._loaded = load_model(
                    self.place, weights=self.weights, dtype=self.dtype, device=self.device, new_head=self.new_head
                )
                self.unloadable = False
                self._check_unchanged()
        return self._loaded

    def close(self) -> None:
        """Release the model before the next one is loaded."""
        self._loaded = None
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
