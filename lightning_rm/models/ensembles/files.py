"""An ensemble on disk: a folder for each member, and `ensemble.json`, which says how they answer as one.

It knows folders, names and settings; a member writes itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch

from lightning_rm.checksums import check_texts, write_checksums
from lightning_rm.digests import FileState, state_of
from lightning_rm.folder_drafts import folder_draft
from lightning_rm.globs import is_glob, named_paths
from lightning_rm.models.backbone.folder import ENSEMBLE_FILE, is_ensemble, is_no_model, is_of_model
from lightning_rm.models.backbone.loading import weight_files
from lightning_rm.told import read_object

WriteFolder = Callable[[Path], None]


def found_folders(path: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    """Return the members that a path names: a pattern's folders in sorted order, all else as it is given.

    Raises:
        ValueError: if a pattern matches nothing.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    if isinstance(path, str) and is_glob(path):
        paths = list(named_paths(path))
        if not paths:
            raise ValueError(f"path={path!r} matches no folder; look whether the members were written there")
    return paths


def member_folders(folder: str | Path) -> list[Path]:
    """Return the Hugging Face folders of an ensemble's members, in their order.

    Raises:
        ValueError: if `ensemble.json` names none, or leads out of its folder.
    """
    names: Any = _stored(folder).get("members")
    if not isinstance(names, list) or not all(_is_plain(name) for name in cast("list[object]", names)):
        raise ValueError(f"{Path(folder) / ENSEMBLE_FILE} names members that are not folders beside it: {names}")
    return [Path(folder) / name for name in cast("list[str]", names)]


def folders_of(folder: str | Path) -> list[Path]:
    """Return the Hugging Face folders of a model: an ensemble's members, or its own."""
    return member_folders(folder) if is_ensemble(folder) else [Path(folder)]


def weights_below(folder: str | Path) -> list[Path]:
    """Return the weight files of a model, or of all members of an ensemble."""
    return [file for one in folders_of(folder) for file in weight_files(one)]


def weights_state(folder: str | Path) -> list[FileState]:
    """Return what is another where one of these files was written again, replaced, added or removed."""
    return [state_of(file) for file in weights_below(folder)]


def read_settings(folder: str | Path) -> dict[str, Any]:
    """Return all that `ensemble.json` says but who the members are: settings, and facts beside them.

    Raises:
        ValueError: if there is no ensemble in the folder.
    """
    if not is_ensemble(folder):
        raise ValueError(
            f"{str(folder)!r} holds no ensemble, there is no {ENSEMBLE_FILE} in it; "
            "read members from their own folders with from_pretrained"
        )
    return {name: value for name, value in _stored(folder).items() if name != "members"}


def write_ensemble(
    folder: str | Path,
    write_members: Sequence[WriteFolder],
    settings: Mapping[str, Any],
    write_beside: WriteFolder | None = None,
) -> None:
    """Write members as `member_0`, `member_1`, ..., and `ensemble.json`; every rank calls it, rank 0 writes.

    The folder is swapped whole, so a killed run leaves no ensemble of old and new members; files in it that are not a
    model's stay.

    Args:
        folder: where to.
        write_members: M functions that write a member into a folder.
        settings: what `ensemble.json` says beside the members' names.
        write_beside: writes more into the draft.
    """
    writes = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    names = [f"member_{number}" for number in range(len(write_members))]
    with folder_draft(folder, is_no_model) if writes else nullcontext(Path(folder)) as draft:
        for name, write in zip(names, write_members, strict=True):
            write(draft / name)
        if writes:
            told = json.dumps({"members": names, **settings}, indent=2)
            (draft / ENSEMBLE_FILE).write_text(told + "\n", encoding="utf-8")
            if write_beside is not None:
                write_beside(draft)
            write_checksums(draft, is_of_model)


def _stored(folder: str | Path) -> dict[str, Any]:
    check_texts(Path(folder))
    return read_object(Path(folder) / ENSEMBLE_FILE)


def _is_plain(name: object) -> bool:
    """Tell whether a name leads nowhere else."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name
