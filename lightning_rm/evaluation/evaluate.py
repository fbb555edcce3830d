"""`evaluate`: reward models on benchmarks or preference files, for a command and for a notebook alike.

A model or a benchmark that fails costs itself alone. With a folder to write to, every model's rewards are kept as they
come, and an evaluation that was stopped goes on behind them. This file knows folders and names; no configuration.
"""

from __future__ import annotations

import gc
import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.rows import Source
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.tokenize.fitting import Overlong
from lightning_rm.evaluation.benchmarks import find_benchmarks
from lightning_rm.evaluation.benchmarks.benchmark import Benchmark
from lightning_rm.evaluation.benchmarks.preferences import pair_items, preference_benchmark
from lightning_rm.evaluation.checks import NUM_ITEMS, spread_over, swapped
from lightning_rm.evaluation.diagnostics import diagnose, temperature_of
from lightning_rm.evaluation.invariance import invariance
from lightning_rm.evaluation.items import Floats, Items
from lightning_rm.evaluation.kept import Kept, KeptRewards
from lightning_rm.evaluation.measure import LENGTH_ONLY, RANDOM, Row, compare, length_row, measure, random_row
from lightning_rm.evaluation.probes import probe
from lightning_rm.evaluation.result import BenchmarkResult, Evaluation, ModelResult
from lightning_rm.evaluation.rewards import Reading, Scored, score_items
from lightning_rm.evaluation.temperature import store_temperature
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.engine import BATCH_TOKENS
from lightning_rm.scoring.load import LoadedModel, find_folder, load_model

Progress = Callable[[str, str, int, int], None]
"""Told the model, the benchmark, how many of its responses are scored and how many there are."""

Paths = str | Path | Sequence[str | Path]
Models = str | Path | Sequence[str | Path] | Mapping[str, "str | Path | LoadedModel"]


@dataclass(frozen=True)
class _Options:
    """What an evaluation does beyond scoring, as `evaluate` takes it."""

    diagnostics: bool
    probe_items: int
    num_draws: int
    num_random: int
    seed: int


class Asked(NamedTuple):
    """A benchmark with its items, and what was left out when they were read."""

    benchmark: Benchmark
    items: Items
    notes: list[str]


@dataclass
class _Answer:
    """What one model said of one benchmark."""

    row: Row
    kept: Kept
    diagnostics: dict[str, Any] = field(default_factory=dict[str, Any])


def evaluate(
    models: Models,
    benchmark: str | Sequence[str] = (),
    *,
    path: Paths | Mapping[str, Paths] | None = None,
    data: str | Path | Source | Mapping[str, str | Path | Source] | None = None,
    out: str | Path | None = None,
    weights: str = "best",
    new_head: bool = False,
    max_tokens: int | None = None,
    overlong: Overlong = "truncate_response",
    layout: LayoutSetting = "auto",
    batch_tokens: int = BATCH_TOKENS,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    diagnostics: bool = False,
    probe_items: int = 200,
    validation: str | Path | Source | None = None,
    on_bad_row: str = "error",
    num_draws: int = 1000,
    num_random: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure reward models on benchmarks, preference files or both.

        evaluate("runs/*", "llmbar", path="LLMBar").table()

    Args:
        models: runs, folders of models, ensembles or members, hub names: a glob or a list; or name -> such, or the
            (model, tokenizer) that `load_model` gives.
        benchmark: a name of `benchmarks.BENCHMARKS`, several, or `all`.
        path: files or a folder in the benchmark's own form, for several benchmarks name -> such, or a folder with one
            of each name; None for the hub.
        data: a preference file, or a source, or several by name.
        out: a folder for tables and rewards; None writes nothing.
        weights: `best` or `last`, of runs.
        new_head: score with heads of random weights, as a control.
        max_tokens: of a conversation; None for each model's own limit.
        overlong: what becomes of a longer one, counted in any case: `truncate_response` cuts the prompt at a turn and
            then the response, `truncate_prompt` the prompt alone, `drop` leaves the item out, `error` is one.
        layout: how conversations are laid out; rewards are the same.
        batch_tokens: grid tokens of a forward.
        device: of the models; None for a GPU where there is one.
        dtype: of the models' backbones.
        diagnostics: calibration, length, spread, selective accuracy, invariance and robustness probes too.
        probe_items: the most items of a benchmark that invariance and probes score again.
        validation: a preference file, or a source, that a temperature is fitted on, for each model; it is stored in the
            model's `config.json` where the model is a folder.
        on_bad_row: of `data` and `validation`: `error` or `drop`.
        num_draws: of the bootstrap over prompts.
        num_random: draws of random rewards.
        seed: of both.
        progress: told after every batch.

    Returns:
        The evaluation. What failed is in its `failed`.

    Raises:
        ValueError: if there is no model or nothing to measure on, or nothing at all could be measured.
    """
    reading = Reading(max_tokens, overlong, layout, batch_tokens)
    options = _Options(diagnostics, probe_items, num_draws, num_random, seed)
    named = find_models(models, weights)
    failed: dict[str, str] = {}
    asked = _asked(benchmark, path, data, on_bad_row, failed)
    to_fit = None if validation is None else pair_items(_source(validation), on_bad_row)[0]
    answers: dict[str, dict[str, _Answer]] = {one.benchmark.name: {} for one in asked}
    kept = None if out is None else KeptRewards(Path(out) / "rewards")
    for name, place in named.items() if asked else ():
        evaluator = _Evaluator(name, place, weights, new_head, reading, options, device, dtype, progress, kept)
        try:
            temperature = None if to_fit is None else evaluator.temperature(to_fit)
        except Exception as error:
            failed[name] = _said(error)
            continue
        for one in asked:
            try:
                answers[one.benchmark.name][name] = evaluator.answer(one, temperature)
            except Exception as error:  # whatever it is, memory that is full too: the others are not to pay for it
                failed[name if evaluator.unloadable else f"{name} on {one.benchmark.name}"] = _said(error)
                if evaluator.unloadable:
                    break
        evaluator.close()
    results = {
        one.benchmark.name: _result(one, answers[one.benchmark.name], options)
        for one in asked
        if answers[one.benchmark.name]
    }
    if not results:
        raise ValueError("nothing could be measured: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    settings = {
        "max_tokens": max_tokens,
        "overlong": overlong,
        "dtype": dtype,
        "weights": weights,
        "num_draws": num_draws,
        "num_random": num_random,
        "seed": seed,
    }
    evaluation = Evaluation(results, failed, settings)
    if out is not None:
        evaluation.write(out)
    return evaluation


def find_models(models: Models, weights: str = "best") -> dict[str, str | Path | LoadedModel]:
    """Name -> model, of what a user names; folders of a glob that hold no model are passed over.

    Raises:
        ValueError: if there is none, or a glob names none.
    """
    if isinstance(models, Mapping):
        if not models:
            raise ValueError("models={} names no model")
        return dict(models)
    found: dict[str, str | Path | LoadedModel] = {}
    for pattern in [models] if isinstance(models, str | Path) else models:
        expanded = str(Path(pattern).expanduser())
        if not glob.has_magic(expanded):
            found[str(pattern)] = pattern
            continue
        paths = sorted(path for path in glob.glob(expanded) if Path(path).is_dir())
        usable = [path for path in paths if find_folder(Path(path), weights) is not None]
        if not usable:
            raise ValueError(
                f"models={str(pattern)!r} names no run with weights in model/{weights} and no folder of a model"
            )
        found |= {path: path for path in usable}
    if not found:
        raise ValueError("models is an empty list; name runs, folders or hub names")
    return found


class _Evaluator:
    """One model on benchmark after benchmark; it is loaded when its rewards are not kept, and let go at the end."""

    def __init__(
        self,
        name: str,
        place: str | Path | LoadedModel,
        weights: str,
        new_head: bool,
        reading: Reading,
        options: _Options,
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
        self._loaded: LoadedModel | None = None

    def answer(self, asked: Asked, temperature: float | None) -> _Answer:
        """The model's rewards of a benchmark, and what they are worth."""
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
        return _Answer(row, found, diagnostics)

    def rewards(self, items: Items, benchmark: str) -> Kept:
        """The rewards of a benchmark's items: kept ones, or new ones, which are kept before anything else is done."""
        key = None
        if self.kept is not None:
            key = self.kept.key(self.folder, items, self.reading, self.dtype, self.new_head)
            if (found := self.kept.read(benchmark, self.name, key, items)) is not None:
                return found
        scored = self.score(items, benchmark)
        some = spread_over(items, NUM_ITEMS, scored.left_out)
        swap = swapped(some, lambda asked: self.score(asked).rewards) if len(some) else {}
        if self.kept is None:
            return Kept(scored, swap)
        return self.kept.write(benchmark, self.name, key, items, scored, swap)

    def score(self, items: Items, benchmark: str | None = None) -> Scored:
        """The rewards of items; told to the progress where they are of a benchmark."""
        model, tokenizer = self.load()
        total, done = int(np.isfinite(items.gold).sum()), 0

        def told(number: int) -> None:
            nonlocal done
            done += number
            if self.progress is not None and benchmark is not None:
                self.progress(self.name, benchmark, done, total)

        scored = score_items(model, tokenizer, items, self.reading, told)
        told(total - done)  # what is left out is done with, too
        return scored

    def diagnose(self, items: Items, scored: Scored, temperature: float | None) -> dict[str, Any]:
        """Diagnostics of the rewards, and of how they move with what should not matter."""
        found = diagnose(items, scored.rewards, scored.votes, temperature)
        some = spread_over(items, self.options.probe_items, scored.left_out)
        model, tokenizer = self.load()
        found["invariance"] = invariance(model, tokenizer, spread_over(some, NUM_ITEMS), self.reading)
        before = self.score(some).rewards
        found["probes"] = probe(some, before, lambda asked: self.score(asked).rewards, self.options.seed)
        return found

    def temperature(self, items: Items) -> float:
        """The temperature of the margins of validation pairs, stored beside the model where it is a folder."""
        scored = self.score(items)
        margin = items.comparisons.margins(scored.rewards)
        known = np.isfinite(margin)
        value = temperature_of(margin[known], items.comparisons.label[known])
        if self.folder is not None:
            store_temperature(self.folder, value)
        return value

    @property
    def folder(self) -> Path | None:
        """The model's folder on this machine; None for one of the hub, or in memory."""
        if isinstance(self.place, tuple):
            return None
        return find_folder(Path(self.place).expanduser(), self.weights)

    def load(self) -> tuple[AnyRewardModel, PreTrainedTokenizerBase]:
        """The model and its tokenizer, loaded once."""
        if self._loaded is None:
            if isinstance(self.place, tuple):
                self._loaded = self.place
            else:
                self.unloadable = True  # until it is there
                self._loaded = load_model(
                    self.place, weights=self.weights, dtype=self.dtype, device=self.device, new_head=self.new_head
                )
                self.unloadable = False
        return self._loaded

    def close(self) -> None:
        """Let go of the model before the next is loaded."""
        self._loaded = None
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()


def _asked(
    benchmark: str | Sequence[str],
    path: Paths | Mapping[str, Paths] | None,
    data: str | Path | Source | Mapping[str, str | Path | Source] | None,
    on_bad_row: str,
    failed: dict[str, str],
) -> list[Asked]:
    """Read everything that models are measured on."""
    wanted = find_benchmarks(benchmark) if benchmark else []
    if not wanted and data is None:
        raise ValueError("there is nothing to measure on: name a benchmark, or data=FILE")
    found: list[Asked] = []
    for one in wanted:
        try:
            items = one.read(_path_of(one.name, path, len(wanted)))
        except Exception as error:
            failed[f"reading {one.name}"] = _said(error)
        else:
            found.append(Asked(one, items, one.missing(items)))
    sources = data if isinstance(data, Mapping) else {} if data is None else {_data_name(data): data}
    for name, source in sources.items():
        items, reasons = pair_items(_source(source), on_bad_row)
        notes = [f"{number:,} rows left out: {reason}" for reason, number in reasons.items()]
        found.append(Asked(preference_benchmark(name, items), items, notes))
    return found


def _path_of(name: str, path: Paths | Mapping[str, Paths] | None, num_benchmarks: int) -> Any:
    """Where a benchmark is to be read."""
    if isinstance(path, Mapping):
        return path.get(name)
    if num_benchmarks > 1 and isinstance(path, str | Path):
        inside = Path(path).expanduser() / name
        if not inside.exists():
            raise ValueError(f"path={path} has no folder {name}; of several benchmarks each has a folder of its name")
        return inside
    return path


def _data_name(data: str | Path | Source) -> str:
    return Path(data).name.partition(".")[0] if isinstance(data, str | Path) else "data"


def _source(data: str | Path | Source) -> Source:
    return FileSource(data) if isinstance(data, str | Path) else data


def _result(asked: Asked, answers: Mapping[str, _Answer], options: _Options) -> BenchmarkResult:
    benchmark, items = asked.benchmark, asked.items
    rewards: dict[str, Floats] = {name: answer.kept.scored.rewards for name, answer in answers.items()}
    left_out = {name: answer.kept.scored.left_out for name, answer in answers.items()}
    return BenchmarkResult(
        name=benchmark.name,
        title=benchmark.title,
        aggregate=benchmark.aggregate,
        num_items=len(items),
        notes=asked.notes,
        models={
            name: ModelResult(
                row=answer.row,
                num_cut=answer.kept.scored.num_cut,
                num_left_out=int(answer.kept.scored.left_out.sum()),
                longest=answer.kept.scored.num_tokens,
                swap=answer.kept.swap,
                diagnostics=answer.diagnostics,
                rewards=answer.kept.file,
            )
            for name, answer in answers.items()
        },
        controls={
            LENGTH_ONLY: length_row(benchmark, items, options.num_draws, options.seed),
            RANDOM: random_row(benchmark, items, options.num_random, options.seed),
        },
        comparisons=compare(items, {name: answer.row for name, answer in answers.items()}, rewards, left_out),
    )


def _said(error: Exception) -> str:
    """What went wrong, in one line; the kind of error where it is no one's message to a user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
