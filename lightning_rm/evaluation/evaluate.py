"""`evaluate`: reward models on benchmarks or preference files, for a command and for a notebook alike.

A model or a benchmark that fails does not stop the others. With a folder to write to, every model's rewards are kept
as they come, and an evaluation that was stopped goes on after them. It knows folders and names; no configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lightning_rm.counts import check_counts
from lightning_rm.data.batches.choice import LayoutSetting
from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.data.tokenize.policy import Overlong
from lightning_rm.devices import known_device
from lightning_rm.drafts import check_place, is_full
from lightning_rm.evaluation.asked import Asked, Models, Paths, find_models, read_asked, said
from lightning_rm.evaluation.benchmarks.preferences import left_out, pair_items
from lightning_rm.evaluation.evaluation import Evaluation
from lightning_rm.evaluation.evaluator import Answer, Evaluator, Options, Progress
from lightning_rm.evaluation.items import Floats, Items
from lightning_rm.evaluation.kept import KeptRewards
from lightning_rm.evaluation.measure import LENGTH_ONLY, RANDOM, compare, length_row, random_row
from lightning_rm.evaluation.result import BenchmarkResult, ModelResult
from lightning_rm.evaluation.rewards import Reading


def evaluate(
    models: Models,
    benchmark: str | Sequence[str] = (),
    *,
    path: Paths | Mapping[str, Paths] | None = None,
    data: AnySource | Mapping[str, AnySource] | None = None,
    out: str | Path | None = None,
    weights: str = "best",
    untrained: str | Path | None = None,
    max_tokens: int | None = None,
    overlong: Overlong = "truncate_response",
    layout: LayoutSetting = "auto",
    batch_tokens: int | None = None,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    diagnostics: bool = False,
    probe_items: int = 200,
    validation: AnySource | None = None,
    on_bad_row: str = "error",
    num_draws: int = 1000,
    num_random: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure reward models on benchmarks, preference files or both::

        evaluate("runs/*", "llmbar", path="LLMBar").table()

    Args:
        models: runs, folders of runs or models, ensembles or members, hub names: a glob or a list; or name -> such, or
            the (model, tokenizer) that `load_model` gives.
        benchmark: a name of `benchmarks.BENCHMARKS`, several, or `all`.
        path: files or a folder in the benchmark's own form, for several benchmarks name -> such, or a folder with one
            of each name; None for the hub.
        data: a preference file or several, a source, or rows in memory (a list of dicts, a `datasets.Dataset`, a
            `DataFrame`); or name -> such.
        out: a folder for tables and rewards; None writes nothing.
        weights: `best` or `last`, of runs.
        untrained: a model or backbone to score with a head of random weights, as one more row: a control that knows
            what the backbone knows, and nothing of preferences.
        max_tokens: of a conversation; None for each model's own limit.
        overlong: what becomes of a longer one, counted in any case: `truncate_response` cuts the prompt at a turn and
            then the response, `truncate_prompt` the prompt alone, `drop` leaves the item out, `error` raises one.
        layout: how conversations are laid out; rewards are the same.
        batch_tokens: grid tokens of a forward; None for what suits the device.
        device: of the models; None for a GPU where there is one.
        dtype: of the models' backbones.
        diagnostics: calibration, length, spread, selective accuracy, invariance and robustness probes too.
        probe_items: the most items of a benchmark that invariance and probes score again.
        validation: what is given for `data`, that a temperature is fitted on, for each model; it is stored in the
            model's `config.json` where the model is a folder that can be written to.
        on_bad_row: of `data` and `validation`: `error` or `drop`.
        num_draws: of the bootstrap over prompts.
        num_random: draws of random rewards.
        seed: of both.
        progress: called after every batch with model, benchmark, responses scored and all responses.

    Returns:
        The evaluation. What failed is in its `failed`.

    Raises:
        ValueError: if there is no model or nothing to measure on, this machine has no such device, or nothing at all
            could be measured.
    """
    reading = Reading(max_tokens, overlong, layout, batch_tokens)
    check_counts(1, num_draws=num_draws, num_random=num_random)
    if device is not None:
        device = known_device(device)
    options = Options(diagnostics, probe_items, num_draws, num_random, seed)
    if out is not None:
        check_place(Path(out), folder=True)
    named = find_models(models, weights)
    control = None if untrained is None else f"untrained head on {untrained}"
    if control is not None and untrained is not None:
        named[control] = untrained
    failed: dict[str, str] = {}
    asked = read_asked(benchmark, path, data, on_bad_row, failed)
    to_fit = None
    if validation is not None:
        to_fit, reasons = pair_items(as_source(validation, "validation"), on_bad_row)
        notes = [f"validation: {note}" for note in left_out(reasons)]
        asked = [one._replace(notes=[*one.notes, *notes]) for one in asked]
    answers: dict[str, dict[str, Answer]] = {one.benchmark.name: {} for one in asked}
    kept = None if out is None else KeptRewards(Path(out) / "rewards")
    for name, place in named.items() if asked else ():
        new_head = name == control
        evaluator = Evaluator(name, place, weights, new_head, reading, options, device, dtype, progress, kept)
        for benchmark_name, answer in _answers(evaluator, asked, to_fit, failed).items():
            answers[benchmark_name][name] = answer
        evaluator.close()
    results = {
        one.benchmark.name: _result(one, answers[one.benchmark.name], options)
        for one in asked
        if answers[one.benchmark.name]
    }
    if not results:
        told = [f"{name}: {why}" for name, why in failed.items()]
        raise ValueError("nothing could be measured: " + (told[0] if len(told) == 1 else "\n  ".join(["", *told])))
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


def _answers(
    evaluator: Evaluator, asked: Sequence[Asked], to_fit: Items | None, failed: dict[str, str]
) -> dict[str, Answer]:
    """Return what a model says of each benchmark that it can be measured on; what goes wrong is put into `failed`,
    whatever it is, out of memory too, and the others go on.
    """
    answers: dict[str, Answer] = {}
    try:
        temperature = None if to_fit is None else evaluator.temperature(to_fit)
    except Exception as error:
        failed[evaluator.name] = said(error)
        return answers
    if evaluator.unstored is not None:
        for one in asked:
            one.notes.append(evaluator.unstored)
    for one in asked:
        try:
            answers[one.benchmark.name] = evaluator.answer(one, temperature)
        except Exception as error:
            if is_full(error):  # which is no fault of the model
                raise
            if evaluator.unloadable:
                failed[evaluator.name] = said(error)
                break
            failed[f"{evaluator.name} on {one.benchmark.name}"] = said(error)
    return answers


def _result(asked: Asked, answers: Mapping[str, Answer], options: Options) -> BenchmarkResult:
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
                remarks=answer.kept.scored.remarks,
                swap=answer.kept.swap,
                members=answer.members,
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
