"""Trainings that another command starts: each is made once, and goes on where it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra.utils import get_class
from omegaconf import DictConfig

from lightning_rm.callbacks.checkpoint_files import checkpoints_of
from lightning_rm.commands._ended import draw_missing
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._resume import RESULTS
from lightning_rm.modules.method import Method
from lightning_rm.scoring.load import find_folder


def method_of(cfg: DictConfig) -> type[Method]:
    """Return the class of the module that a configuration trains."""
    return cast(type[Method], get_class(cfg.module._target_))


def check_rewards(cfg: DictConfig, wanted_to: str) -> None:
    """Check that the module that is to be trained gives rewards.

    Raises:
        ValueError: if it trains text alone.
    """
    if method_of(cfg).measures_text:
        raise ValueError(f"module: {cfg.module._target_} trains no rewards to {wanted_to}; name another module")


def has_ended(run: Path, weights: Sequence[str]) -> bool:
    """Tell whether a run has written its results and some of these weights; figures that it lacks are drawn then."""
    if not (run / RESULTS).is_file() or all(find_folder(run, one) is None for one in weights):
        return False
    draw_missing(run)
    return True


def train_in(run: Path, words: Sequence[str]) -> list[str]:
    """Return the command that trains in a folder, ready for it: a run that left a checkpoint there goes on, and what
    another has left is removed.
    """
    if not checkpoints_of(run):
        shutil.rmtree(run, ignore_errors=True)
    return ["train", *words, f"hydra.run.dir={quoted(run)}", "resume=auto"]
