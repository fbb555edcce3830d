"""From a command line to a command: what is checked before anything heavy is imported, and how the command is run.

Hydra composes the configuration and runs sweeps; this file does what Hydra does badly: help, completion, unknown
keys, values that need quotes, and where a resumed run goes on.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._alone import writing_alone
from lightning_rm.commands._config import conf_dir
from lightning_rm.commands._errors import plain_errors
from lightning_rm.commands._job import LOST, in_sweep, leave_word, task_words, word_before
from lightning_rm.commands._kinds import check_kinds, check_texts
from lightning_rm.commands._places import write_home
from lightning_rm.commands._plugins import check_search
from lightning_rm.commands._resume import go_on, is_requeued
from lightning_rm.commands._stopped import follow_starter, follow_sweep, listen, stoppable
from lightning_rm.commands._sweep import told_at_the_end
from lightning_rm.commands._targets import ALLOWED, check_targets, is_allowed, take_word
from lightning_rm.commands._words import MULTIRUN, is_multirun

BARS = ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")
"""The environment variables that libraries which draw bars look for when they are imported."""

_arguments: list[str] | None = None  # of this process, as they were given, once they are prepared


def command(
    verb: str, end: Callable[[DictConfig], None] | None = None, *, alone: bool = False
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make the `main` of a command from a function of its configuration.

    Args:
        verb: the command, and its configuration in `conf/`.
        end: is called when a job has ended, however it did.
        alone: whether a second one that writes to the same `out` meanwhile is refused: they would spoil each other's
            work.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Any:
            from lightning_rm.data.store.report import RowsLeftOut

            logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
            warnings.simplefilter("ignore", RowsLeftOut)  # every command that reads pairs shows a table of them
            if "SLURM_JOB_ID" not in os.environ:  # on a login node; within a job it tells of a slip
                warnings.filterwarnings("ignore", message="The `srun` command is available on your system")
            result: Any = None  # of a job that fails
            with ExitStack() as ends, plain_errors(cfg):
                if end is not None:
                    ends.callback(end, cfg)
                check_targets(cfg)
                write_home(cfg)
                check_texts(cfg)
                check_kinds(cfg)
                if in_sweep():
                    follow_sweep()
                goes_on = cfg.get("resume") == "auto" or (in_sweep() and is_requeued(cfg, arguments()))
                result = go_on(cfg) if goes_on else None
                if result is None:
                    if in_sweep():
                        leave_word(LOST)
                    if alone and not OmegaConf.is_missing(cfg, "out") and cfg.out is not None:
                        ends.enter_context(writing_alone(Path(cfg.out), verb))
                    result = task(cfg)
                if in_sweep() or ("resume" in cfg and word_before() is not None):  # or one of a sweep, alone again
                    leave_word(None, result)
            # Optuna takes None for a trial without a value, and trips over NaN.
            return None if in_sweep() and isinstance(result, float) and math.isnan(result) else result

        @functools.wraps(task)
        def main() -> None:
            prepare(verb)
            run = hydra.main(version_base="1.3", config_path=conf_dir(), config_name=verb)(job)
            told = told_at_the_end(verb, arguments()) if is_multirun(sys.argv[1:]) else nullcontext()
            with _said(), stoppable(), told:
                run()

        return main

    return decorate


def prepare(verb: str) -> None:
    """Answer `--help`, or check this process's command line and find where a resumed run goes on; once per process.

    Raises:
        SystemExit: with 0 after the help, with 1 after a mistake, which is printed.
    """
    global _arguments
    if _arguments is not None:
        return
    words = _arguments = sys.argv[1:]
    listen()
    follow_starter()
    if isinstance(sys.stdout, TextIOWrapper):  # a sign that a terminal has not must not cost what is done
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():  # a file would keep a bar each time that it is drawn
        for bars in BARS:
            os.environ.setdefault(bars, "1")
    if "-h" in words or "--help" in words:
        from lightning_rm.commands._help import help_text
        from lightning_rm.commands._targets import take_word
        from lightning_rm.commands._words import sort_words

        with _said():
            given = sort_words(words)
            print(help_text(verb, take_word(given.own), given.folder))
        raise SystemExit(0)
    if "--version" in words:  # Hydra would print its own
        print(version_text())
        raise SystemExit(0)
    with _said():
        sys.argv[1:] = _for_hydra(verb, words)


def _for_hydra(verb: str, words: list[str]) -> list[str]:
    """Return the words of a command line as Hydra is to have them, once they are checked.

    Raises:
        ValueError: for a mistake in them.
    """
    from lightning_rm.commands._choices import compose_choices
    from lightning_rm.commands._keys import check_keys, with_mappings, without_choices
    from lightning_rm.commands._quoting import quoted_where_needed, with_home
    from lightning_rm.commands._ranks import with_date
    from lightning_rm.commands._resume import check_folder, with_folder
    from lightning_rm.commands._words import check_single, check_text, parse, sort_words

    check_text(words, _working_folder())
    given = sort_words([with_home(word) for word in take_word(words)])
    is_other = given.name is not None or given.path is not None  # a configuration whose keys are its own
    asked = without_choices(verb, given.own)
    own = [quoted_where_needed(word) for word in asked]
    own = own if is_other else with_mappings(own)
    if given.looks_only:  # Hydra's own questions, such as --cfg job
        return [*given.flags, *own]  # Hydra takes a flag between keys for a mistake
    if is_other:
        choice = compose_choices(given.name or verb, parse(given.own), given.folder, given.path)
    else:
        choice = check_keys(verb, asked, given.folder)
    words = [*given.flags, *choice.at_home, *own]
    if choice.is_multirun and not any(word.startswith("hydra.mode=") for word in words):
        words.append(MULTIRUN)
    if is_multirun(words):
        check_search(parse(given.own))
    else:
        check_single(parse(own), choice.groups)
    if verb == "train":
        words = with_folder(words, choice.run_dir)
        if not is_multirun(words):
            words = with_date(words, choice.run_dir)
        check_folder(words)
    if is_multirun(words):
        words.append("+hydra.callbacks.sweep._target_=lightning_rm.commands._sweep.SweepNoted")
        if is_allowed():  # on machines that have not this process's environment too
            words.append(f"+hydra.job.env_set.{ALLOWED}='1'")
    return words


def _working_folder() -> str:
    """Return the folder that this process works in.

    Raises:
        ValueError: if it has been removed.
    """
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise ValueError("the folder that this command works in is not there any more; go to another one") from error


def arguments() -> list[str]:
    """Return the command line of this process, as it was given; of a job of a sweep, that of the job alone, which may
    run in a process that a launcher has started.
    """
    if not in_sweep():
        return list(sys.argv[1:] if _arguments is None else _arguments)
    own = HydraConfig.get()
    name, there = own.job.config_name, conf_dir()
    flags = {"command-line": "--config-dir", "main": "--config-path"}
    places = {source.path: flags[source.provider] for source in own.runtime.config_sources if source.provider in flags}
    elsewhere = [f"{flag}={path}" for path, flag in places.items() if path != there]
    elsewhere += [] if Path(there, f"{name}.yaml").is_file() else [f"--config-name={name}"]
    return [*elsewhere, *task_words()]


def version_text() -> str:
    """Return the name and version of what is installed."""
    try:
        return f"lightning-rm {version('lightning-rm')}"
    except PackageNotFoundError:
        return "lightning-rm, not installed"


@contextmanager
def _said() -> Generator[None]:
    """Print a ValueError, ours or Hydra's of flags that exclude each other, or that a process of ours was killed,
    without a traceback, and exit.
    """
    try:
        yield
    except (ValueError, ChildProcessError) as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
