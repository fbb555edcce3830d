"""What became of each job of a multirun: one that fails does not stop the others, and the sweep says which failed.

It knows the words that jobs leave in their folders (`_job`) and Hydra's callbacks; no command.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from lightning_rm.commands._alone import LOCK, released, work_alone
from lightning_rm.commands._config import plain_console
from lightning_rm.commands._job import LOST, WORD, asked_for, leave_word
from lightning_rm.commands._planned import check_outs, planned_jobs
from lightning_rm.commands._plugins import check_searched, end_in_words
from lightning_rm.commands._quoting import PLAIN_PLACE, quoted
from lightning_rm.commands._resume import RESULTS
from lightning_rm.commands._words import is_multirun, is_multirun_flag, sort_words
from lightning_rm.counts import number_of
from lightning_rm.system import is_running
from lightning_rm.told import read_object

BY_NUMBER = ("${hydra:job.num}", "${hydra.job.num}")
"""How `hydra.sweep.subdir` says that jobs lie by their numbers: ours, and Hydra's own."""

NOT_BEGUN = "not begun: the sweep ended before"


@dataclass(frozen=True)
class Sweep:
    """A multirun, as the process that launches its jobs knows it.

    Args:
        folder: of all its jobs.
        jobs: the overrides of each job, by its number; none where a sweeper chooses them on the way.
    """

    folder: Path
    jobs: Sequence[Sequence[str]]


_sweep: Sweep | None = None  # of this process, once Hydra has begun it
_unwritten: dict[Path, str] = {}  # what went wrong in jobs of this process, by folder, where the disk did not take it


def leave_last_word(error: str, is_full: bool) -> None:
    """Record what went wrong in a job; where the disk is full the sweep ends, for Hydra could begin no other.

    Args:
        error: in words.
        is_full: whether it says that the disk is.

    Raises:
        SystemExit: with 1, in the process that launches the jobs.
    """
    try:
        leave_word(error)
    except OSError:
        _unwritten[Path(HydraConfig.get().runtime.output_dir).resolve()] = error
        is_full = True
    if is_full and _sweep is not None:
        raise SystemExit(1)


class SweepNoted(Callback):
    """Hydra calls it before a multirun: it is noted for `told_at_the_end`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the words of an older sweep in the folder, unless this one goes on with it.

        Raises:
            SystemExit: with 1, after a sentence, if another sweep works there, jobs of this one write the same file, or
                would train in the place of runs that have ended.
        """
        global _sweep
        folder, jobs = Path(config.hydra.sweep.dir), planned_jobs(config)
        check_searched(config)
        check_outs(config, jobs)
        work_alone(folder)
        if "overwrite" in config and config.get("resume", "") is None and not config.overwrite:
            told: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
            _check_free(folder, told["subdir"], len(jobs))
        if config.get("resume") != "auto":
            for job in _jobs_below(folder):
                (job / WORD).unlink()
        _sweep = Sweep(folder, jobs)
        end_in_words(config.hydra.sweeper._target_, config.hydra.launcher._target_)


@contextmanager
def told_at_the_end(verb: str, arguments: Sequence[str]) -> Generator[None]:
    """Show what became of each job of a multirun, however it ended, if one failed, was lost or has not begun.

    Args:
        verb: the command that each job is.
        arguments: its command line.

    Raises:
        SystemExit: with 1, of a multirun that came to its end nevertheless.
    """
    global _sweep
    _sweep, whole = None, False
    _unwritten.clear()
    try:
        with released():
            yield
        whole = True
    finally:
        missed = _sweep is not None and show(_sweep, verb, arguments)
        if missed and whole:
            raise SystemExit(1)


def show(sweep: Sweep, verb: str, arguments: Sequence[str]) -> bool:
    """Show what became of each job, and how to run those again that are not done; show nothing if all are.

    Args:
        sweep: the multirun.
        verb: the command that each job is.
        arguments: its command line.

    Returns:
        Whether a job is not done.
    """
    found = words_of(sweep)
    missed = [folder for folder, word in found.items() if word["error"] is not None]
    if not missed:
        return False
    console = plain_console(stderr=True)
    table = Table(title=f"{len(missed)} of {len(found)} jobs are not done", title_justify="left")
    for heading in ("job", "overrides", "what went wrong"):
        table.add_column(heading, overflow="fold")
    for folder, word in found.items():
        name = str(folder.relative_to(sweep.folder))
        table.add_row(name, " ".join(word["overrides"]), word["error"] or "done")
    console.print(table)
    console.print("each of them again, alone:")
    again = ["resume=auto"] if verb == "train" else []
    given = sort_words(arguments)
    flags = [word for word in given.flags if not is_multirun_flag(word)]
    flags += [word for word in given.own if word.startswith("allow_targets=")]
    flags += [] if is_multirun(arguments) else ["hydra.mode=RUN"]  # a yaml asks for the sweep
    for folder in missed:
        words = [*flags, *asked_for(found[folder]["overrides"]), _word("hydra.run.dir", folder), *again]
        console.print(f"  {shlex.join(['lightning-rm', verb, *words])}", soft_wrap=True)
    if again:
        words = [word for word in arguments if not word.startswith(("resume=", "hydra.sweep.dir="))]
        words += [_word("hydra.sweep.dir", sweep.folder), *again]
        console.print("the sweep again, without the jobs that are done:")
        console.print(f"  {shlex.join(['lightning-rm', verb, *words])}", soft_wrap=True)
    return True


def _check_free(folder: Path, subdir: str, num_jobs: int) -> None:
    """Check that no run has ended where jobs are going to train; of jobs that do not lie by their numbers, each finds
    out by itself.

    Args:
        folder: of the sweep.
        subdir: of a job in it, as it is configured.
        num_jobs: how many there will be; 0 where a sweeper chooses on the way.

    Raises:
        SystemExit: with 1, after a sentence, if one has: Hydra makes a warning of any other exception.
    """
    numbers = [int(job.parent.name) for job in folder.glob(f"*/{RESULTS}") if job.parent.name.isdigit()]
    ended = [number for number in numbers if not num_jobs or number < num_jobs]
    if ended and subdir in BY_NUMBER:
        told = f"{number_of(len(ended), 'run')} of a sweep that ended there ({', '.join(map(str, sorted(ended)))})"
        print(
            f"error: {folder} holds {told}: go on with it by resume=auto, name another folder with hydra.sweep.dir=, "
            "or set overwrite=true to train anew in their place",
            file=sys.stderr,
        )
        raise SystemExit(1)


def words_of(sweep: Sweep) -> dict[Path, dict[str, Any]]:
    """Return what became of each job, by its folder, in the order of their numbers."""
    found = {job: read_object(job / WORD) for job in _jobs_below(sweep.folder)}
    for path, word in found.items():
        if word["error"] == LOST:
            word["error"] = _unwritten.get(path.resolve()) or _where(*word["process"])
    begun = [asked_for(word["overrides"]) for word in found.values()]
    for number, overrides in enumerate(sweep.jobs):
        if asked_for(overrides) not in begun:
            found[sweep.folder / str(number)] = {"overrides": list(overrides), "error": NOT_BEGUN}
    return {path: found[path] for path in sorted(found, key=lambda path: (len(path.name), path))}


def _jobs_below(folder: Path) -> list[Path]:
    """Return the folders of a sweep's jobs, as deep as its `hydra.sweep.subdir` puts them; not of a sweep within it."""
    jobs = [path.parent for path in folder.rglob(WORD)]
    within = [lock.parent for lock in folder.rglob(LOCK) if lock.parent != folder]
    return [job for job in jobs if not any(job.is_relative_to(sweep) for sweep in within)]


def _where(host: str, process: int) -> str:
    """Return what is to be said of a job that has not said that it ended."""
    if host != socket.gethostname():
        return f"{LOST} ({host}, process {process}); where its launcher leaves it alone it may still be running"
    running = is_running(process)
    if running is False or process == os.getpid():  # which would run it no longer
        return LOST
    if running is None:
        return f"{LOST} (process {process}); where its launcher leaves it alone it may still be running"
    return f"still running, as process {process}"


def _word(key: str, folder: Path) -> str:
    """Return a word that sets a folder, with quotes where Hydra needs them."""
    return f"{key}={folder if re.fullmatch(PLAIN_PLACE, str(folder)) else quoted(folder)}"
