"""`lightning-rm evaluate`: reward models on benchmarks or preference files, as one table with intervals."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._config import is_given, plain, plain_console, require_all, say_files
from lightning_rm.commands._data import decontaminated, find_source, sets_of
from lightning_rm.commands._entry import command
from lightning_rm.commands._job import overrides_of
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.data.rows import Source
from lightning_rm.devices import device_of
from lightning_rm.evaluation.asked import Paths
from lightning_rm.evaluation.evaluate import evaluate
from lightning_rm.evaluation.evaluation import Evaluation


def evaluate_models(cfg: DictConfig) -> Evaluation:
    """Measure models, print the tables, write the files.

    Args:
        cfg: `conf/evaluate.yaml`, composed.

    Returns:
        The evaluation; what failed is in its `failed`.
    """
    require_all(cfg)
    _check(cfg)
    console = plain_console()
    with resumable("scored"), Bar(console) as bar:

        def show(model: str, benchmark: str, done: int, total: int) -> None:
            bar.show(f"{Path(model).name} on {benchmark}", done, total, key=(model, benchmark))

        evaluation = evaluate(
            plain(cfg.models),
            list(cfg.benchmark),
            path=_paths(cfg),
            data=_sources(cfg),
            out=cfg.out,
            weights=cfg.weights,
            untrained=cfg.untrained,
            max_tokens=cfg.max_tokens,
            overlong=cfg.overlong,
            layout=cfg.layout.layout,
            batch_tokens=cfg.batch_tokens,
            device=device_of(cfg.accelerator),
            dtype=cfg.dtype,
            diagnostics=cfg.diagnostics,
            probe_items=cfg.probe_items,
            validation=_validation(cfg),
            on_bad_row=cfg.data.on_bad_row if cfg.data is not None else "error",
            num_draws=cfg.num_draws,
            num_random=cfg.num_random,
            seed=cfg.seed,
            progress=show,
        )
    console.print(evaluation.table())
    for model in dict.fromkeys(model for result in evaluation.benchmarks.values() for model in result.models):
        if job := overrides_of(Path(model)):  # a folder of a sweep is a number
            console.print(f"  {model}: {' '.join(job)}", soft_wrap=True)
    names = ("evaluation.json", "evaluation.csv", "evaluation.md", "rewards")
    say_files(console, *(Path(cfg.out) / name for name in names))
    return evaluation


def _check(cfg: DictConfig) -> None:
    """Refuse settings that would not be read."""
    if not cfg.benchmark and cfg.data is None:
        raise ValueError(
            "there is nothing to measure on: name a benchmark (benchmark=llmbar, or all) or data (data=jsonl "
            "data.file=pairs.jsonl)"
        )
    for name in ("max_tokens", "overlong"):
        if is_given(f"data.{name}"):
            raise ValueError(f"data.{name} is of training; evaluate reads {name}={cfg.data[name]}")


def _paths(cfg: DictConfig) -> dict[str, Paths]:
    """Return where to read benchmarks that are not to come from the hub: their own path, or `path`; for several,
    folders in it.
    """
    names = [str(name) for name in cfg.benchmark]
    if len(names) > 1 and not isinstance(cfg.path, str | None):
        raise ValueError(
            f"path={cfg.path}; of several benchmarks give a folder with one of each name, or "
            f"{' '.join(f'benchmark.{name}.path=...' for name in names)}"
        )
    found: dict[str, Paths] = {}
    for name in names:
        if cfg.benchmark[name].path is not None:
            found[name] = plain(cfg.benchmark[name].path)
        elif cfg.path is not None:
            found[name] = plain(cfg.path) if len(names) == 1 else Path(cfg.path) / name
    return found


def _sources(cfg: DictConfig) -> dict[str, Source] | None:
    """Return the sets of the data that are measured on, by name."""
    if cfg.data is None:
        return None
    if cfg.set is not None:
        return {str(cfg.set): find_source(cfg)}
    for stage in ("test", "val", "train"):
        if found := sets_of(cfg, stage):
            return {"pairs": decontaminated(found[stage], cfg)} if stage == "train" else found
    raise ValueError("the data has no set to measure on; give data.file")


def _validation(cfg: DictConfig) -> str | Source | None:
    """Return the pairs that a temperature is fitted on."""
    if cfg.validation != "val" or cfg.data is None:
        return cfg.validation
    return find_source(OmegaConf.merge(cfg, {"set": "val"}))  # pyright: ignore[reportArgumentType]  # a DictConfig again


@command("evaluate", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point; the exit code is not 0 where a model or a benchmark failed."""
    evaluation = evaluate_models(cfg)
    if evaluation.failed:
        for name, message in evaluation.failed.items():
            print(f"error: {name}: {message}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
