"""What a run finds before it begins: in its folder one that has ended or was stopped, and runs that stand for their
weights. `_folder` has what it writes there.
"""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_rm.analysis.runs import read_results
from lightning_rm.callbacks.checkpoint_files import checkpoints_of, latest_checkpoint
from lightning_rm.commands._alone import is_at_work
from lightning_rm.commands._config import dotted, plain_console, resolved, written_config
from lightning_rm.commands._job import in_sweep
from lightning_rm.commands._resume import RESULTS
from lightning_rm.models.backbone.folder import is_ensemble
from lightning_rm.models.ensembles.files import member_folders
from lightning_rm.scoring.load import check_not_above_runs, find_folder

STOPPED = "checkpoints/resume.ckpt"
"""What a stop has left in a run's folder."""

HOW = ("resume", "overwrite")
"""Settings that say how a run comes into its folder, and not what it is."""


def check_free(run: Path) -> None:
    """Check that a run which begins takes the place of none that has ended or can go on: its hours are not thrown away
    unasked.

    Raises:
        ValueError: if it would.
    """
    if is_at_work(run):  # which has its own error
        return
    if (run / RESULTS).is_file():
        other = "hydra.sweep.dir" if in_sweep() else "hydra.run.dir"
        raise ValueError(
            f"{run} holds a run that has ended: name another folder with {other}=, or set overwrite=true to train anew "
            "in its place"
        )
    if checkpoints_of(run):  # left by Ctrl-C, an error or a kill
        raise ValueError(
            f"{run} holds a run that has not come to its end: go on with it by resume=auto, or set overwrite=true to "
            "begin another in its place"
        )


def has_come_to(run: Path, cfg: DictConfig) -> dict[str, dict[str, float]] | None:
    """Return the results of a run that has ended in a folder, by the settings of one that is to go on there; None if
    there is more to do for it.

    Settings that differ may ask for more, such as another epoch. Where rewards are not finite, training has diverged,
    and the run ends as it did.
    """
    if not (run / RESULTS).is_file() or not (config := run / "config.yaml").is_file() or changes(config, cfg):
        return None
    results = read_results(run / RESULTS)
    diverged = any(not math.isfinite(metrics.get("reward_mean", 0.0)) for metrics in results.values())
    return None if diverged else results


def check_more_to_train(run: Path, cfg: DictConfig) -> None:
    """Check that a run which goes on where one has ended, and has nothing left to train, is that one: what would be
    measured anew are weights that other settings have trained.

    Raises:
        ValueError: if it is another.
    """
    config = run / "config.yaml"
    if (run / RESULTS).is_file() and config.is_file() and (changed := changes(config, cfg)):
        raise ValueError(
            f"{run} holds a run that has ended, and with {', '.join(changed)} there is nothing left to train: measure "
            "it by lightning-rm evaluate, name another folder, or leave resume out and set overwrite=true to train anew"
        )


def changes(config: Path, cfg: DictConfig) -> list[str]:
    """Return what the settings of a run say otherwise than those that were written before, without what follows
    another key.
    """
    before, now = dict(dotted(OmegaConf.to_container(written_config(config)))), dict(dotted(resolved(cfg)))
    raw = dict(dotted(OmegaConf.to_container(cfg, resolve=False)))
    follow = tuple(f"{key}." for key, value in raw.items() if not isinstance(value, dict) and "${" in str(value))
    return [
        *(
            f"{key}={now[key]} in place of {before.get(key)}"
            for key, value in raw.items()
            if not isinstance(value, dict) and "${" not in str(value) and before.get(key) != now[key] and key not in HOW
        ),
        *(
            f"no {key}, which was {value}"
            for key, value in before.items()
            if not isinstance(value, dict) and key not in now and not key.startswith(follow) and key not in HOW
        ),
    ]


def take_runs(cfg: DictConfig) -> None:
    """Replace the folder of a run, where one is named, by what it means: its best weights or latest checkpoint."""
    path = cfg.backbone.get("path")
    if path is not None and (Path(path) / "config.yaml").is_file():
        found = find_folder(Path(path))
        if found is None:
            raise ValueError(f"backbone.path={path!r} is a run without weights in model/best; has it finished?")
        plain_console().print(f"backbone.path: {path} is a run; its weights are read from {found}", soft_wrap=True)
        cfg.backbone.path = str(found)
    elif path is not None and is_ensemble(path):
        members = ", ".join(map(str, member_folders(path)))
        raise ValueError(f"backbone.path={path!r} is an ensemble, and a backbone is one model: name one of {members}")
    elif path is not None and find_folder(Path(path)) is None:
        check_not_above_runs(Path(path))
    if cfg.resume is not None and Path(cfg.resume).is_dir() and (found := latest_checkpoint(cfg.resume)) is not None:
        cfg.resume = str(found)
