"""A run's folder, and what a run writes and removes as it begins there; `_ended` has what it leaves at its end."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lightning_rm.annotation.voters import write_trained_on
from lightning_rm.checksums import CHECKSUMS_FILE
from lightning_rm.commands._alone import is_at_work
from lightning_rm.commands._config import dotted, plain_console
from lightning_rm.commands._data import start_of
from lightning_rm.commands._entry import arguments
from lightning_rm.commands._found import HOW, STOPPED, changes
from lightning_rm.commands._resume import RESULTS, write_job
from lightning_rm.data.sets import as_source
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.drafts import clear_drafts, draft_of
from lightning_rm.models.backbone.folder import is_of_model

CHECKPOINTS = ("checkpoints/best*.ckpt", "checkpoints/last*.ckpt", STOPPED)
OWN = (*HOW, "name", "seed", "init_seed", "paths", "checkpoint", "logger", "callbacks", "resample", "debug", "show")
TRAINS = ("precision", "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val")
READ = ("data.file", "data.cache_dir", "data.num_workers", "data.val_", "data.test_", "data.module.", "data.eval_")
"""Settings that do not make a voter what it is, and those of the trainer that do; its pairs are known by content."""

HYDRAS = frozenset({".hydra", "train.log"})
"""What Hydra writes in a run's folder before the command begins."""

UNLOGGED = frozenset({"hparams.yaml"})
"""What the logger of CSV leaves in its folder without a row."""

SPIKES = "spikes.jsonl"
"""The gradient spikes of a run with their pairs."""

SETTINGS = "config_to_step_{}.yaml"
"""The settings of a run up to the step from which it went on with others."""

RECORDS = (SETTINGS.format("*"), "csv/metrics.csv", RESULTS, "data.json", SPIKES, "pairs/*.*", "figures/*.*")
"""What a run writes beside its models, as globs below its folder."""


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
    """Remove the folder of a run that has not begun: it holds what Hydra and the logger of CSV write before, nothing
    else, and no other run is at work there.

    With it go those above it that are empty now, up to `runs`, below which Hydra makes them.
    """
    logged = run / "csv"
    is_unlogged = logged.is_dir() and {path.name for path in logged.iterdir()} <= UNLOGGED
    nothing = HYDRAS | {logged.name} if is_unlogged else HYDRAS
    if run.is_dir() and {path.name for path in run.iterdir()} <= nothing and not is_at_work(run):
        for made in (run / ".hydra", logged):
            shutil.rmtree(made, ignore_errors=True)
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
    changed = changes(there, cfg)
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
