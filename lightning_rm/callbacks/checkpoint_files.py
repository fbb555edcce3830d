"""Checkpoints as files: written whole or not at all, and read with a sentence for what is none.

It knows files and the names that a checkpoint's parts have; no model and no trainer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_rm.drafts import draft_of

PARTS = ("state_dict", "loops", "global_step", "optimizer_states")
"""What a checkpoint that training goes on from has at least."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint to a draft beside its place, has the disk take it, and renames it.

    The checkpoint of before stays until then, no other file system is written to, and what goes wrong is raised at
    once. A plugin of the trainer: `L.Trainer(plugins=[CheckpointFiles()])`.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: if the disk is full or may not be written to; it names the file.
        """
        try:
            with draft_of(Path(path)) as draft, draft.open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # in whose place torch raises one of its own
            for cause in _causes(error):
                if isinstance(cause, OSError):
                    raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint to go on from; its tensors stay on the disk until they are used.

    Raises:
        ValueError: if there is none, or it is cut off, damaged, of something else, or of weights alone.
        OSError: if it may not be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a checkpoint, a .ckpt file, or a run's folder that has some")
    if not path.exists():
        raise ValueError(f"{path}: there is no such checkpoint")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: the run that wrote it was killed, or its disk was full")
    path.open("rb").close()  # where it may not be read the system says why
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever torch makes of bytes that are none of its own
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is cut off, damaged, or of something else "
            f"({type(error).__name__}). Name another; a run has checkpoints/last.ckpt and best.ckpt"
        ) from error
    missing = [part for part in PARTS if part not in found] if isinstance(found, dict) else list(PARTS)
    if missing:
        raise ValueError(
            f"{path} is not a checkpoint that training goes on from: it has no {', '.join(missing)}. A run writes such "
            "ones to its folder checkpoints"
        )
    return cast(dict[str, Any], found)


def latest_checkpoint(run: str | Path) -> Path | None:
    """Return the checkpoint of a run's folder that has the most steps, of those that can be read; None if there is
    none.
    """
    found: list[tuple[int, Path]] = []
    for path in sorted((Path(run) / "checkpoints").glob("*.ckpt")):
        try:
            found.append((int(read_checkpoint(path)["global_step"]), path))
        except (ValueError, OSError):
            continue
    return max(found)[1] if found else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
