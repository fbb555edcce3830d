"""What the jobs of a multirun are going to be, as far as it is known before, and whether they get in each other's way.

It knows Hydra's own sweeper; no folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf


def planned_jobs(config: DictConfig) -> list[list[str]]:
    """Return the overrides of each job of Hydra's own sweeper; of another one nothing is known before."""
    if not config.hydra.sweeper._target_.endswith(f".{BasicSweeper.__name__}"):
        return []
    return [list(filter_overrides(job)) for job in BasicSweeper.split_arguments(_asked(config), None)[0]]


def check_outs(config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Check that no two jobs have the same `out`, where each would write over what the one before has finished.

    Stages of rounds write below one folder, each its own.

    Raises:
        SystemExit: with 1, after a sentence: Hydra makes a warning of any other exception where it calls this.
    """
    usual: Any = OmegaConf.to_container(config, resolve=False)
    if not jobs and not any(word.is_sweep_override() and word.key_or_group == "out" for word in _asked(config)):
        jobs = [[], []]  # of another sweeper, which chooses no out: that of one job is the next one's
    outs = [{"out": usual.get("out"), **dict(word.split("=", 1) for word in job if "=" in word)} for job in jobs]
    named = [job["out"] for job in outs if "stage" not in job and isinstance(job["out"], str) and "$" not in job["out"]]
    if twice := [out for out in named if out != "???" and named.count(out) > 1]:
        told = f"each of this sweep's jobs needs an out of its own, such as 'out=\"{twice[0]}_${{hydra:job.num}}\"'"
        print(f"error: out={twice[0]} would be written over by the next job: {told}", file=sys.stderr)
        raise SystemExit(1)


def _asked(config: DictConfig) -> list[Override]:
    """Return what a multirun is asked for, by its sweeper's configuration and by words."""
    words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    params: Any = config.hydra.sweeper.get("params") or {}
    return OverridesParser.create().parse_overrides([*(f"{key}={value}" for key, value in params.items()), *words])
