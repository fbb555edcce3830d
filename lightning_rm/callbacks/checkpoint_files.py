"""Checkpoints as files: written whole or not at all, and read with a clear error for a file that is not a checkpoint.

Their checksums are compared before they are used. It knows files and the names that a checkpoint's parts have; no model
and no trainer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from lightning_rm.checksums import check_archive, check_weights
from lightning_rm.drafts import draft_of

PARTS = ("state_dict", "loops", "global_step", "optimizer_states")
"""The keys that a checkpoint must have for training to go on from it."""

IN_SHARDS = ("state_dict", "optimizer_states")
"""The keys that a sharded checkpoint keeps in other files than `SHARDED`, which has the rest."""

SHARDED = "meta.pt"


def _on_cpu(storage: Any, location: str) -> Any:
    return storage


def is_sharded(path: Path) -> bool:
    """Tell whether a folder is a checkpoint whose weights lie in it shard by shard (FSDP2)."""
    return (path / SHARDED).is_file()


class CheckpointFiles(TorchCheckpointIO):
    """A plugin that writes a checkpoint to a draft beside its place, flushes it to disk, and renames it.

    The earlier checkpoint stays until then, no other file system is written to, and what goes wrong is raised at
    once. It goes to the trainer: `L.Trainer(plugins=[CheckpointFiles()])`.
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
        except RuntimeError as error:  # torch raises it in place of the OSError
            for cause in _causes(error):
                if isinstance(cause, OSError):
                    raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = _on_cpu,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint after checking that its bytes are those that were written.

        Raises:
            ValueError: if they are not; it names whole ones beside it.
        """
        if Path(path).is_file():
            check_bytes(path)
        return super().load_checkpoint(path, map_location, weights_only)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint to go on from; its tensors stay on the disk until they are used.

    Raises:
        ValueError: if there is none, or it is cut off, damaged, of something else, or of weights alone; the whole ones
            beside it are named.
        OSError: if it may not be read.
    """
    found = _read(Path(path))
    check_bytes(path)
    return found


def check_bytes(path: str | Path) -> None:
    """Compare the checksums that a checkpoint has of its parts.

    Raises:
        ValueError: if a checksum does not match; the whole checkpoints beside it are named.
    """
    path = Path(path)
    try:
        _compare(path)
    except ValueError as error:
        raise ValueError(f"{error}. {_others(path)}") from error


def checkpoints_of(run: str | Path) -> list[Path]:
    """Return the checkpoints in a run's folder, whole or not; one of shards is a folder."""
    return sorted((Path(run) / "checkpoints").glob("*.ckpt"))


def latest_checkpoint(run: str | Path) -> Path | None:
    """Return the checkpoint of a run's folder that has the most steps, of those that are whole; None if there is none.

    It warns of those that it passes over.
    """
    found: list[tuple[int, Path]] = []
    for path in checkpoints_of(run):
        try:
            found.append((int(_read(path)["global_step"]), path))
        except (ValueError, OSError) as error:
            rank_zero_warn(f"passed over: {error}")
    for _, path in sorted(found, reverse=True):
        try:
            _compare(path)
            return path
        except ValueError as error:
            rank_zero_warn(f"passed over: {error}")
    return None


def _read(path: Path) -> dict[str, Any]:
    """Return a checkpoint without comparing its checksums."""
    if path.is_dir() and not is_sharded(path):
        raise ValueError(f"{path} is a folder; name a checkpoint, a .ckpt file, or a run's folder that has some")
    if not path.is_dir() and not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint")
    if path.is_file() and not path.stat().st_size:
        raise ValueError(f"{path} is empty: the run that wrote it was killed, or its disk was full")
    (path / SHARDED if path.is_dir() else path).open("rb").close()  # if it may not be read, the system's error says why
    try:
        found = _load(path)
    except Exception as error:  # torch raises many kinds for bytes that it did not write
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is cut off, damaged, or of something else "
            f"({type(error).__name__}). {_others(path)}"
        ) from error
    parts = [part for part in PARTS if path.is_file() or part not in IN_SHARDS]
    missing = [part for part in parts if part not in found] if isinstance(found, dict) else parts
    if missing:
        check_bytes(path)  # a damaged name of a part shows up here
        raise ValueError(
            f"{path} is not a checkpoint that training goes on from: it has no {', '.join(missing)}. A run writes such "
            "ones to its folder checkpoints"
        )
    return cast(dict[str, Any], found)


def _load(path: Path) -> Any:
    file = path / SHARDED if path.is_dir() else path
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _compare(path: Path) -> None:
    """Compare the checksums of a file's parts, or of a folder's files."""
    if path.is_dir():
        check_weights(path)
    else:
        check_archive(path)


def _others(path: Path) -> str:
    """Name the whole checkpoints beside one that is not."""
    whole: list[str] = []
    for other in sorted(path.parent.glob("*.ckpt")):
        try:
            if other != path:
                _compare(other)
                whole.append(f"{other.name} (step {_load(other)['global_step']})")
        except Exception:  # damaged too, or of something else
            continue
    if not whole:
        return "There is not a whole one beside it: name another, or begin anew"
    return f"Whole ones beside it: {', '.join(whole)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
