"""A run's folder: what is written when it begins, what is removed for it, and what is written at its end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lightning_rm.analysis.run import write_figures
from lightning_rm.annotation.voters import write_trained_on
from lightning_rm.checksums import CHECKSUMS_FILE, write_checksums_below
from lightning_rm.commands._alone import is_at_work
from lightning_rm.commands._checks import BENCHMARK
from lightning_rm.commands._config import dotted, plain_console, resolved, written_config
from lightning_rm.commands._data import start_of
from lightning_rm.commands._entry import arguments
from lightning_rm.commands._resume import write_job
from lightning_rm.commands._tables import results_table
from lightning_rm.data.sets import as_source
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.store.report import DataReport
from lightning_rm.drafts import clear_drafts, draft_of
from lightning_rm.models.backbone.folder import is_of_model

STOPPED = "checkpoints/resume.ckpt"
"""What a stop has left in a run's folder."""

CHECKPOINTS = ("checkpoints/best*.ckpt", "checkpoints/last*.ckpt", STOPPED)
OWN = ("name", "seed", "init_seed", "resume", "paths", "checkpoint", "logger", "callbacks", "resample", "debug")
TRAINS = ("precision", "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val")
READ = ("data.file", "data.cache_dir", "data.num_workers", "data.val_", "data.test_", "data.module.", "data.eval_")
"""Settings that do not make a voter what it is, and those of the trainer that do; its pairs are known by content."""

HYDRAS = frozenset({".hydra", "train.log"})
"""What Hydra writes in a run's folder before the command begins."""

SPIKES = "spikes.jsonl"
"""The gradient spikes of a run with their pairs."""

PLACES = {
    "best weights": "model/best",
    "last weights": "model/last",
    "results": "results.json",
    "per-pair rewards": "pairs",
    "metrics": "csv/metrics.csv",
    "W&B run": "wandb",
    "config": "config.yaml",
    "data counts": "data.json",
    "checkpoints": "checkpoints",
}
"""What a run leaves -> where in its folder, the models first."""

SETTINGS = "config_to_step_{}.yaml"
"""The settings of a run up to the step from which it went on with others."""

RECORDS = (SETTINGS.format("*"), "csv/metrics.csv", "results.json", "data.json", SPIKES, "pairs/*.*", "figures/*.*")
"""What a run writes beside its models, as globs below its folder."""

CHECKED = ("csv/metrics.csv", "data.json", "trained_on.json", "pairs/*.*")
"""What other commands read of a run that has ended, and compare with its checksums."""


def check_not_stopped(run: Path) -> None:
    """Check that no run was stopped in the folder of one that begins: it can go on, and its hours are not thrown away
    unasked.

    Raises:
        ValueError: if one was.
    """
    stopped = run / STOPPED
    if stopped.exists() and not (run / "results.json").exists() and not is_at_work(run):
        raise ValueError(
            f"{run} holds a run that was stopped: go on with it by resume=auto, or begin another in its place once "
            f"{stopped} is removed"
        )


def begin(run: Path, cfg: DictConfig, step: int | None) -> None:
    """Make the folder ready when training begins: by then data and settings have been checked.

    Logs, results, figures and models of an older run there are removed, and the user is told: they must not be taken
    for this run's. A run that goes on keeps what it has, and where its settings differ from those of before, these too.

    Args:
        run: the folder.
        cfg: of the run.
        step: at which the run goes on there; None for one that begins.
    """
    run.mkdir(parents=True, exist_ok=True)
    for folder in (run, run / "checkpoints", run / "csv", run / "pairs"):
        clear_drafts(folder)
    config = run / "config.yaml"
    if step is not None:
        _keep_settings(config, cfg, step)
    else:
        if config.is_file():
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(config.stat().st_mtime))
            plain_console().print(f"{run} holds a run of {day}: it is replaced", soft_wrap=True)
        for path in (path for glob in (*CHECKPOINTS, *RECORDS) for path in run.glob(glob)):
            path.unlink()
        for path in run.glob("model/*/*"):
            if path.parent.name in ("best", "last") and is_of_model(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run / CHECKSUMS_FILE).unlink(missing_ok=True)  # of files that grow again
    write_trained_on(run, *trained_on(cfg))
    with draft_of(config) as draft:
        OmegaConf.save(cfg, draft, resolve=True)
    write_job(run, arguments())


def clear_if_nothing(run: Path) -> None:
    """Remove the folder of a run that has not begun: it holds what Hydra writes before, and nothing else, and no other
    run is at work there.

    With it go those above it that are empty now, up to `runs`, below which Hydra makes them.
    """
    if run.is_dir() and {path.name for path in run.iterdir()} <= HYDRAS and not is_at_work(run):
        shutil.rmtree(run / ".hydra", ignore_errors=True)
        (run / "train.log").unlink(missing_ok=True)
        if run.resolve() == Path.cwd():
            return
        run.rmdir()
        runs = Path.cwd() / "runs"
        for above in run.resolve().parents:
            if above != runs and runs not in above.parents:
                break
            try:
                above.rmdir()
            except OSError:  # it holds other runs
                break


def _keep_settings(config: Path, cfg: DictConfig, step: int) -> None:
    """Keep the settings up to a step beside those from there on, where they differ.

    A run may go on from before a step at which it went on with others: these are forgotten.
    """
    if not config.is_file():
        return
    kept = {int(path.stem.rpartition("_")[2]): path for path in config.parent.glob(SETTINGS.format("*"))}
    later = sorted(number for number in kept if number >= step)
    there = kept[later[0]] if later else config
    before, now = dict(dotted(OmegaConf.to_container(written_config(there)))), dict(dotted(resolved(cfg)))
    raw = dict(dotted(OmegaConf.to_container(cfg, resolve=False)))
    changed = [
        f"{key}={now[key]} in place of {before.get(key)}"
        for key, value in raw.items()  # not what follows another key
        if not isinstance(value, dict) and "${" not in str(value) and before.get(key) != now[key] and key != "resume"
    ]
    aside = config.with_name(SETTINGS.format(step))
    if changed:
        there.replace(aside)
        told = ", ".join(changed)
        plain_console().print(f"from step {step} on with {told}; the settings before are in {aside}", soft_wrap=True)
    for path in (kept[number] for number in later if kept[number] != aside or not changed):
        path.unlink(missing_ok=True)


def check_no_run(out: str) -> None:
    """Check that another command's `out` is not the folder of a run, among whose files its own would lie.

    Raises:
        ValueError: if it is.
    """
    if (Path(out) / "config.yaml").is_file():
        raise ValueError(f"out={out!r} holds a training run; name another folder")


def trained_on(cfg: DictConfig) -> tuple[str, dict[str, object]]:
    """Return a fingerprint of a run's training pairs as they are read, and its settings without seeds, folds and
    paths, but with the checksums of the weights that it began with, where they have some.
    """
    source: Any = instantiate(cfg.data.module.get("train"), _convert_="all")
    settings = dict(dotted(OmegaConf.to_container(cfg, resolve=False)))
    own = {key: value for key, value in settings.items() if not isinstance(value, dict) and not _is_its_own(key)}
    own |= start_of(cfg)
    if isinstance(source, ParquetShards):
        return source.fingerprint(), own
    return "" if source is None else as_source(source).fingerprint(), own


def _is_its_own(key: str) -> bool:
    """Tell whether a setting may differ between runs of one sweep, or is only about paths and logging."""
    first, _, rest = key.partition(".")
    return first in OWN or (first == "trainer" and rest not in TRAINS) or key.startswith(READ)


def write_counts(run: Path, reports: dict[str, DataReport]) -> None:
    """Write what became of every row."""
    rows = [asdict(report) | {"name": name} for name, report in reports.items()]
    with draft_of(run / "data.json") as draft:
        draft.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def report(run: Path, results: dict[str, dict[str, float]], urls: Sequence[str] = ()) -> None:
    """Write figures and results, print the table and where everything is.

    `results.json` is written last, even if a figure fails, but not where the run is stopped meanwhile: its presence
    means that the run is complete.

    Args:
        run: the folder.
        results: set -> metric -> value.
        urls: where the run can be looked at.
    """
    out = plain_console()
    figures: list[Path] = []
    undrawn: str | None = None
    failed: Exception | None = None
    try:
        figures = write_figures(run)
    except ValueError as error:  # a diverged run has a table, and no rewards to draw
        undrawn = f"no figures: {error}"
    except Exception as error:
        failed = error
    content = (json.dumps(results, indent=2) + "\n").encode()
    write_checksums_below(run, CHECKED, {"results.json": content})
    with draft_of(run / "results.json") as draft:
        draft.write_bytes(content)
    if failed is not None:
        raise failed
    out.print(results_table({name: values for name, values in results.items() if not name.startswith(BENCHMARK)}))
    for name, values in results.items():
        if name.startswith(BENCHMARK):
            told = ", ".join(f"{section} {value:.3f}" for section, value in values.items())
            out.print(f"{name}: {told}")
    if undrawn:
        out.print(undrawn)
    out.print(f"everything is in {_from_here(run)}", soft_wrap=True)
    for name, place in PLACES.items():
        if (run / place).exists():
            out.print(f"{name:>18}  {place}", soft_wrap=True)
    if figures:
        drawn = ", ".join(sorted({path.stem for path in figures}))
        out.print(f"{'figures':>18}  figures: {drawn}", soft_wrap=True)
    for url in urls:
        out.print(f"{'W&B':>18}  {url}", soft_wrap=True)


def draw_missing(run: Path) -> None:
    """Draw the figures of a run that has ended which are not there: results are kept where a full disk has no room for
    figures.
    """
    try:
        write_figures(run, missing=True)
    except ValueError as error:
        plain_console().print(f"{run}: no figures: {error}", soft_wrap=True)


def clear_stopped(run: Path) -> None:
    """Remove the checkpoint that a stop has left in a run which has gone on to its end: one that nobody stopped has
    none.
    """
    left = run / STOPPED
    if left.is_dir():  # of shards
        shutil.rmtree(left)
    else:
        left.unlink(missing_ok=True)


def _from_here(path: Path) -> Path:
    """Return a path as a user would type it: from the working directory, if it lies below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
