"""Trainings that another command starts: each is made once, and goes on where it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning_rm.callbacks.checkpoint_files import checkpoints_of
from lightning_rm.commands._ended import draw_missing
from lightning_rm.commands._resume import RESULTS
from lightning_rm.commands._words import quoted
from lightning_rm.scoring.load import find_folder


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
