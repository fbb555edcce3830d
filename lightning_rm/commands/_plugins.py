"""What Hydra's plugins for sweeps, Optuna's search and Slurm's launcher, answer with a traceback: said in a sentence.

It knows the plugins that are installed; no job and no folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


def end_in_words(sweeper: str, launcher: str) -> None:
    """Have the plugins of a sweep, named by their classes, end it in a sentence."""
    if sweeper.endswith(".OptunaSweeper"):
        _end_a_search_that_found_nothing()
    if launcher.endswith(".SlurmLauncher"):
        _end_where_slurm_takes_no_job()


def check_searched(config: DictConfig) -> None:
    """Check that a training says what a search is to go by; without it no trial would have a value.

    Raises:
        SystemExit: with 1, after a sentence: Hydra makes a warning of any other exception where it calls this.
    """
    if config.hydra.sweeper._target_.endswith(".OptunaSweeper") and config.get("monitor", "") is None:
        print("error: monitor=null, and a search goes by it: set a metric, as monitor=val/accuracy", file=sys.stderr)
        raise SystemExit(1)


def _end_a_search_that_found_nothing() -> None:
    """Have Optuna's sweeper end in a sentence where no trial has a value, rather than fail for want of a best one.

    What became of each trial that did not come to its end is told afterwards.
    """
    from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

    search = OptunaSweeper.sweep

    def sweep(self: OptunaSweeper, arguments: list[str]) -> None:
        try:
            search(self, arguments)
        except ValueError as error:
            if "No trials are completed" not in str(error):
                raise
            print("error: no run of this search has come to a number to search by (monitor=)", file=sys.stderr)
            raise SystemExit(1) from error

    OptunaSweeper.sweep = sweep


def _end_where_slurm_takes_no_job() -> None:
    """Have Slurm's launcher say, in `sbatch`'s own words, why no job was begun."""
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    from submitit.core.utils import UncompletedJobError

    submit = SlurmLauncher.launch

    def launch(self: SlurmLauncher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        try:
            return submit(self, job_overrides, initial_job_idx)
        except RuntimeError as error:  # there is no Slurm, or a command of its has failed; else a job has
            if isinstance(error, UncompletedJobError) and not isinstance(error.__cause__, subprocess.SubprocessError):
                raise
            print(f"error: Slurm has taken no job: {'; '.join(str(error).splitlines())}", file=sys.stderr)
            raise SystemExit(1) from error

    SlurmLauncher.launch = launch


def check_search(overrides: Sequence[Override]) -> None:
    """Check the settings of Optuna's search on a command line; Optuna itself would answer with a traceback.

    Raises:
        ValueError: for a number of runs below 1, and for a storage that cannot be opened.
    """
    given = {each.key_or_group.removeprefix("hydra.sweeper."): each for each in overrides}
    for name in ("n_trials", "n_jobs"):
        number = given[name].value() if name in given else 1
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"hydra.sweeper.{name}={number}; give 1 or more")
    storage = given["storage"].value() if "storage" in given else None
    if isinstance(storage, str):
        from optuna.storages import get_storage
        from sqlalchemy.exc import SQLAlchemyError

        try:
            get_storage(storage)
        except (ImportError, ValueError, SQLAlchemyError) as error:
            raise ValueError(
                f"hydra.sweeper.storage={storage!r} cannot be opened ({str(error).splitlines()[0]}); give a database "
                "as SQLAlchemy names it: sqlite:///study.db"
            ) from error
