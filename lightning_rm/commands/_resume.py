"""Where a run that is resumed goes on: in the folder of its checkpoint, found by what a user or a cluster says.

It knows command lines and folders of runs; the checkpoint itself is read by others. It imports nothing heavy.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lightning_rm.commands._job import word_before
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._words import is_multirun, key_of, parse, sort_words
from lightning_rm.drafts import check_place
from lightning_rm.told import read_object

JOB = "job_of_cluster.json"
"""The file in a run's folder that says which job of a cluster wrote it, and by which command line."""

RESULTS = "results.json"
"""What a run writes last: where it lies, the run has ended."""

LEAST_BYTES = 2**16
"""What must be free on the disk for a run to begin: its settings take some of it."""


def with_folder(arguments: Sequence[str], usual: str = "") -> list[str]:
    """Return a command line of `train` that goes on in the folder where its run lies.

        resume=runs/a/checkpoints/resume.ckpt  ->  the same, and hydra.run.dir=runs/a
        resume=runs/a                          ->  the latest checkpoint of runs/a, and hydra.run.dir=runs/a
        resume=auto hydra.run.dir=runs/a       ->  the same, if there is a checkpoint; else the run begins

    A job that Slurm has put back into its queue goes on as if `resume=auto` and its folder of before had been given.
    A folder that is given stays, and so does the command line of a multirun, each of whose jobs has a folder, and of a
    run whose folder follows its settings, runs/${name}: the job itself finds out where it goes on (`go_on`), and so
    does one whose folder has results.

    Args:
        arguments: the command line.
        usual: the folder where none is named.
    """
    words = list(arguments)
    if is_multirun(words):
        return words
    given = {override.key_or_group: override for override in parse(sort_words(words).own)}
    folder = _text(given.get("hydra.run.dir"))
    resume = _text(given.get("resume"))
    if resume is None:
        if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
            return words
        runs = [Path(folder)] if folder and "${" not in folder else [*Path("runs").glob("*"), *Path("runs").glob("*/*")]
        before = [path for path in runs if _is_of(path, arguments)]
        if not before:
            return words
        folder, resume = str(max(before, key=lambda path: (path / JOB).stat().st_mtime)), "auto"
    words = [word for word in words if key_of(word) != "resume"]
    if resume == "auto":
        folder = folder or usual
        if not folder or "${now:" in folder:
            raise ValueError("resume=auto looks for a checkpoint in the run's folder; name it with hydra.run.dir=")
        if "${" in folder:
            return list(arguments)
        run = Path(folder)
        if (run / RESULTS).is_file():  # the job itself finds out whether it is done
            words, found = [*words, "resume=auto"], None
        else:
            found = _latest(run)
    else:
        path = Path(resume).expanduser()
        is_run = path.is_dir() and not (path / "meta.pt").is_file()  # a checkpoint of shards is a folder too
        run = path if is_run else path.parent.parent
        found = _latest(run) if is_run else path
        if found is None:
            raise ValueError(f"resume={resume!r} is a folder without a checkpoint; name a run, or a .ckpt file")
        if folder is None and (run / "config.yaml").is_file() and found.parent.name == "checkpoints":
            folder = str(run)
    words = [word for word in words if not word.startswith("hydra.run.dir=")]
    if folder is not None:
        words.append(f"hydra.run.dir={quoted(folder)}")
    if found is not None:
        if found.exists():
            _say(f"going on from {found}")
        words.append(f"resume={quoted(found)}")
    return words


def go_on(cfg: DictConfig) -> float | None:
    """Have a job with `resume=auto` go on in its folder, where it is not done.

    Args:
        cfg: of the job; its `resume` becomes the latest checkpoint of its folder, or null where there is none.

    Returns:
        What the job, or a run of its settings, returned that came to its end there; None if none did.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    word = word_before()
    if word is not None and word["error"] is None:
        _say(f"{folder} is done")
        return math.nan if word["result"] is None else word["result"]
    if (folder / RESULTS).is_file() and (done := _came_to(folder, cfg)) is not None:
        _say(f"{folder} is done")
        return done
    found = _latest(folder)
    if found is not None:
        _say(f"going on from {found}")
    cfg.resume = None if found is None else str(found)
    return None


def is_requeued(cfg: DictConfig, arguments: Sequence[str]) -> bool:
    """Tell whether Slurm has put a job of a multirun back into its queue, which has written its folder before."""
    if "resume" not in cfg or cfg.resume is not None or not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return False
    return _is_of(Path(HydraConfig.get().runtime.output_dir), arguments)


def check_folder(arguments: Sequence[str]) -> None:
    """Check that the folder of a run, or of a multirun, can be written, as far as it is known: Hydra makes it.

    Raises:
        ValueError: if a file is in its way, the folder that it would be made in cannot be written, it holds rounds of
            `lightning-rm rlhf`, or the disk is full.
    """
    several = is_multirun(arguments)
    key = "hydra.sweep.dir" if several else "hydra.run.dir"
    given = {each.key_or_group: each for each in parse(sort_words(arguments).own)}
    folder = _text(given.get(key)) or "runs"
    if "${" in folder:
        return
    try:
        there = check_place(Path(folder), folder=True)
    except NotADirectoryError as error:
        told = f"{folder} cannot be made: {error.filename} is a file"
        raise ValueError(f"{told}; say where to write with {key}=") from error
    except PermissionError as error:
        told = f"{folder}: {error.filename} cannot be written"
        raise ValueError(f"{told}; say where to write with {key}=") from error
    if (Path(folder) / "round_0").is_dir():
        raise ValueError(f"{folder} holds rounds of lightning-rm rlhf; name another folder with {key}=")
    total, _, free = shutil.disk_usage(there)
    if total and free < LEAST_BYTES:  # where Hydra would answer with a traceback; some file systems count nothing
        raise ValueError(f"{folder}: the disk of {there} is full; make room, or say where to write with {key}=")


def write_job(run: Path, arguments: Sequence[str]) -> None:
    """Say in a run's folder which job of Slurm writes it, if one does."""
    if job := os.environ.get("SLURM_JOB_ID"):
        (run / JOB).write_text(json.dumps({"job": job, "arguments": _known(arguments)}) + "\n", encoding="utf-8")


def _is_of(run: Path, arguments: Sequence[str]) -> bool:
    """Tell whether this job wrote a run's folder, by this command line."""
    try:
        found = read_object(run / JOB)
    except (OSError, ValueError):
        return False
    return found == {"job": os.environ.get("SLURM_JOB_ID"), "arguments": _known(arguments)}


def _known(arguments: Sequence[str]) -> list[str]:
    """Return a command line without `allow_targets=`, which is taken from it before anything else is read."""
    return [word for word in arguments if not word.startswith("allow_targets=")]


def _say(what: str) -> None:
    """Say on rank 0 where a run goes on, or that it is done."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or 0
    if int(rank) == 0:
        print(what, file=sys.stderr)


def _came_to(run: Path, cfg: DictConfig) -> float | None:
    from lightning_rm.commands._ended import draw_missing  # imports torch, as the next
    from lightning_rm.commands._found import has_come_to, take_runs
    from lightning_rm.commands._measured import objective

    take_runs(cfg)
    if (results := has_come_to(run, cfg)) is None:
        return None
    draw_missing(run)
    return objective(results, cfg.monitor)


def _latest(run: Path) -> Path | None:
    from lightning_rm.callbacks.checkpoint_files import latest_checkpoint  # imports torch

    return latest_checkpoint(run)


def _text(override: Override | None) -> str | None:
    """Return the value of an override as a text; None for none or null."""
    if override is None or override.is_sweep_override():
        return None
    value = override.value()
    return None if value is None else str(value)
