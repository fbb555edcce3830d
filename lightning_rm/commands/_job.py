"""What a job of a multirun leaves in its own folder: its overrides, and how it ended.

It knows Hydra's job and its folder; no sweep. A job leaves a word when it begins and when it ends, so that it does not
matter which process or machine a launcher ran it on, nor how that came to its end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from lightning_rm.drafts import write_json
from lightning_rm.told import finite, read_object

WORD = "job.json"
"""The file in a job's folder: its overrides, where it runs, what it returned, and the first line of what went wrong."""

LOST = "lost: it was killed, or its machine went away"


def in_sweep() -> bool:
    """Tell whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def task_words() -> list[str]:
    """Return the words of this job that are not Hydra's own, as they were given; none outside a job."""
    words: Any = HydraConfig.get().overrides.task if HydraConfig.initialized() else OmegaConf.create([])
    return OmegaConf.to_container(words, resolve=False)  # pyright: ignore[reportReturnType]  # a list of texts


def leave_word(error: str | None, result: Any = None) -> None:
    """Record in the job's folder that it is done, what went wrong, or that its outcome is not known yet (`LOST`)."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    word = {
        "overrides": task_words(),
        "error": error,
        "result": result if isinstance(result, int | float) else None,
        "process": [socket.gethostname(), os.getpid()],
    }
    write_json(folder / WORD, finite(word), indent=None)


def word_before() -> dict[str, Any] | None:
    """Return the word that this job left when it was run before, by the same overrides but for `resume=`."""
    path = Path(HydraConfig.get().runtime.output_dir) / WORD
    if not path.is_file():
        return None
    word = read_object(path)
    return word if asked_for(word["overrides"]) == asked_for(task_words()) else None


def overrides_of(folder: Path) -> list[str]:
    """Return what a job of a multirun was asked for; nothing for any other folder."""
    word = folder / WORD
    return asked_for(read_object(word)["overrides"]) if word.is_file() else []


def asked_for(overrides: Sequence[str]) -> list[str]:
    """Return overrides without those that say nothing of what a job is."""
    return [word for word in overrides if not word.startswith(("resume=", "grid=", "launcher="))]
